//! `/v1/messages`: sending and reading, cursors, blocks, taking back and reporting.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::protocol::id::ResumeSecret;
use crate::protocol::message::{Content, Draft, ID_END};

use super::conversations::Conversation;
use super::inbox;
use super::safety::Which;
use super::shapes::{NewMessage, PageBody, Paged, ReadBody, ReasonBody, ReportedBody, SentBody, Span, With};
use super::viewer::{Desk, Viewer, id_of, no_message, party, unknown_account};
use super::{Messages, now};

/// Most messages of one answer.
const MOST: u32 = 100;

/// Longest reason of a report, in characters.
const MAX_REASON: usize = 500;

type Shared = State<Arc<Desk>>;
type Ask = Extension<Context>;
type PathOf = Result<Path<String>, PathRejection>;
type QueryOf<T> = Result<Query<T>, QueryRejection>;

/// The routes of messages. Without `messages` they answer 503 `needs_database`.
pub fn routes<S>(api: &Arc<Api>, messages: Option<Arc<Messages>>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let desk = Desk {
        api: Arc::clone(api),
        messages,
    };
    OpenApiRouter::default()
        .routes(routes!(send, list))
        .routes(routes!(conversations))
        .routes(routes!(read))
        .routes(routes!(blocks))
        .routes(routes!(block, unblock))
        .routes(routes!(take_back))
        .routes(routes!(report))
        .routes(routes!(inbox::open))
        .with_state(Arc::new(desk))
}

/// Sends a message.
///
/// It is stored when it is answered, and pushed to every open socket of its recipient. The same `client_id` again is answered
/// as the first time. The scope is `watch`.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "messages",
    request_body = NewMessage,
    responses(
        (status = 201, description = "It is stored", body = SentBody),
        (status = 403, description = "`sender_forbidden`: the sender is another account. `blocked`: the recipient wants \
            nothing of this account. `room_forbidden`: the account does not watch this content. Others as everywhere", body = crate::api::error::ErrorBody),
        (status = 404, description = "`not_found`: there is no such account", body = crate::api::error::ErrorBody),
    ),
    security(("bearer" = []))
)]
async fn send(State(desk): Shared, Extension(context): Ask, request: Request) -> Result<Response, ApiError> {
    let (viewer, _, request) = desk.viewer(&context, request).await?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let sender = fields.text("sender")?;
    if sender.is_some_and(|sender| *sender != *viewer.account.account) {
        let message = "the sender is the token's account";
        return Err(ApiError::forbidden("sender_forbidden", message));
    }
    let to = fields.text("recipient")?;
    let to = to.ok_or_else(|| ApiError::bad_request("recipient", "recipient: is required"))?;
    let content = fields.take::<Map<String, Value>>("content", "an object")?;
    let content = content.ok_or_else(|| ApiError::bad_request("content", "content: is required"))?;
    let client_id = fields.text("client_id")?;
    let draft = Draft::new(to, Content::of(&content)?, client_id, "recipient")?;
    desk.check_room(&viewer, &draft.to).await?;
    let stored = desk.messages()?.say(&viewer.account, &draft).await?;
    Ok((StatusCode::CREATED, Json(SentBody::new(&stored))).into_response())
}

/// A conversation from an id on.
#[utoipa::path(
    get,
    path = "/v1/messages",
    tag = "messages",
    params(Span),
    responses(
        (status = 200, description = "Its messages, the oldest first", body = PageBody),
        (status = 403, description = "`third_party`: it is others' conversation. `room_forbidden`: the account does not watch \
            this content. Others as everywhere", body = crate::api::error::ErrorBody),
        (status = 404, description = "`not_found`: there is no such account", body = crate::api::error::ErrorBody),
    ),
    security(("bearer" = []))
)]
async fn list(
    State(desk): Shared,
    Extension(context): Ask,
    query: QueryOf<Span>,
    request: Request,
) -> Result<Json<PageBody>, ApiError> {
    let (viewer, store, _) = desk.viewer(&context, request).await?;
    let Query(span) = query.map_err(bad_query)?;
    let start = number(span.start.as_deref(), 1, 0..=ID_END - 1, "start")?;
    let limit = number(
        span.limit.as_deref(),
        u64::from(MOST),
        1..=u64::from(MOST),
        "limit",
    )?;
    let with = other_party(&viewer, &span)?;
    desk.check_room(&viewer, &with).await?;
    let (tenant, own) = (&viewer.account.tenant, &*viewer.account.account);
    let limit = u32::try_from(limit).unwrap_or(MOST);
    let found = if crate::protocol::message::room(&with).is_some() {
        store
            .received(tenant, &with, start.saturating_sub(1), limit)
            .await?
    } else {
        store.conversation(tenant, (own, &with), start, limit).await?
    };
    // Who is gone is still in what was said.
    if found.is_empty() && with != own && !with.starts_with("room:") && !store.knows(tenant, &with).await? {
        return Err(unknown_account());
    }
    Ok(Json(PageBody::new(found, start)))
}

/// The conversation that is meant: `with`, or `recipient`, beside which `sender` may say who the other one is.
fn other_party(viewer: &Viewer, span: &Span) -> Result<String, ApiError> {
    let own = &*viewer.account.account;
    let named = match (&span.with, &span.recipient) {
        (Some(_), Some(_)) => return Err(ApiError::bad_request("recipient", "recipient: the same as with")),
        (Some(with), None) => (with, "with"),
        (None, Some(recipient)) => (recipient, "recipient"),
        (None, None) => return Err(ApiError::bad_request("with", "with: is required")),
    };
    let recipient = party(named.0.clone(), named.1)?;
    match &span.sender {
        None => Ok(recipient),
        Some(sender) if *sender == *own => Ok(recipient),
        Some(sender) if *recipient == *own => party(sender.clone(), "sender"),
        Some(_) => {
            let message = "the token's account is no party of this conversation";
            Err(ApiError::forbidden("third_party", message))
        }
    }
}

fn number(
    text: Option<&str>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
    field: &'static str,
) -> Result<u64, ApiError> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse::<u64>().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        ApiError::bad_request(field, format!("{field}: a whole number from {least} to {most}"))
    })
}

/// The account's conversations, the newest first.
#[utoipa::path(
    get,
    path = "/v1/messages/conversations",
    tag = "messages",
    params(Paged),
    responses((status = 200, description = "With how many messages are unread", body = Listing<Conversation>)),
    security(("bearer" = []))
)]
async fn conversations(
    State(desk): Shared,
    Extension(context): Ask,
    query: QueryOf<Paged>,
    request: Request,
) -> Result<Json<Listing<Conversation>>, ApiError> {
    let (viewer, store, _) = desk.viewer(&context, request).await?;
    let Query(paged) = query.map_err(bad_query)?;
    let page = List::new(paged.page, paged.limit)?;
    let (tenant, own) = (&viewer.account.tenant, &viewer.account.account);
    let (found, total) = store.conversations(tenant, own, page.span()).await?;
    Ok(Json(page.answer(found, total)))
}

/// Notes how far a conversation was read.
///
/// The cursor never goes back, and not beyond the newest message.
#[utoipa::path(
    put,
    path = "/v1/messages/read",
    tag = "messages",
    request_body = ReadBody,
    responses(
        (status = 200, description = "The conversation", body = Conversation),
        (status = 404, description = "`not_found`: there is no such conversation", body = crate::api::error::ErrorBody),
    ),
    security(("bearer" = []))
)]
async fn read(
    State(desk): Shared,
    Extension(context): Ask,
    request: Request,
) -> Result<Json<Conversation>, ApiError> {
    let (viewer, store, request) = desk.viewer(&context, request).await?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let with = fields.text("with")?;
    let with = with.ok_or_else(|| ApiError::bad_request("with", "with: is required"))?;
    let with = party(with, "with")?;
    let id = fields.take::<u64>("id", "the id of a message")?;
    let id = id.filter(|id| *id < ID_END);
    let id = id.ok_or_else(|| ApiError::bad_request("id", "id: must be the id of a message"))?;
    let (tenant, own) = (&viewer.account.tenant, &viewer.account.account);
    let read = store.mark_read(tenant, own, &with, id).await?;
    read.map(Json)
        .ok_or_else(|| ApiError::not_found("there is no such conversation"))
}

/// Whom the account has blocked.
#[utoipa::path(
    get,
    path = "/v1/messages/blocks",
    tag = "messages",
    responses((status = 200, description = "Their ids", body = Listing<String>)),
    security(("bearer" = []))
)]
async fn blocks(
    State(desk): Shared,
    Extension(context): Ask,
    request: Request,
) -> Result<Json<Listing<String>>, ApiError> {
    let (viewer, store, _) = desk.viewer(&context, request).await?;
    let found = store.blocked(&viewer.account.tenant, &viewer.account.account);
    Ok(Json(Listing::whole(found.await?)))
}

/// Lets nothing of another account reach this one.
#[utoipa::path(
    put,
    path = "/v1/messages/blocks/{account}",
    tag = "messages",
    params(("account" = String, Path, description = "The other account", min_length = 1, max_length = 256)),
    responses(
        (status = 204, description = "It is blocked"),
        (status = 409, description = "`too_many`: this account has blocked 1000", body = crate::api::error::ErrorBody),
    ),
    security(("bearer" = []))
)]
async fn block(
    State(desk): Shared,
    Extension(context): Ask,
    account: PathOf,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (viewer, store, _) = desk.viewer(&context, request).await?;
    let Path(account) = account.map_err(|_| unknown_account())?;
    let account = party(account, "account")?;
    let (tenant, own) = (&viewer.account.tenant, &viewer.account.account);
    if store.block(tenant, own, &account, now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = "this account has blocked as many as it may";
    Err(ApiError::new(StatusCode::CONFLICT, "too_many", message))
}

/// Takes a block back.
#[utoipa::path(
    delete,
    path = "/v1/messages/blocks/{account}",
    tag = "messages",
    params(("account" = String, Path, description = "The other account", min_length = 1, max_length = 256)),
    responses((status = 204, description = "It is not blocked any more")),
    security(("bearer" = []))
)]
async fn unblock(
    State(desk): Shared,
    Extension(context): Ask,
    account: PathOf,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (viewer, store, _) = desk.viewer(&context, request).await?;
    let Path(account) = account.map_err(|_| unknown_account())?;
    let account = party(account, "account")?;
    let (tenant, own) = (&viewer.account.tenant, &viewer.account.account);
    if store.unblock(tenant, own, &account).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("this account is not blocked"))
}

/// Takes a message of one's own back.
///
/// What it says is gone, for its recipient too; its id is never given again.
#[utoipa::path(
    delete,
    path = "/v1/messages/{id}",
    tag = "messages",
    params(("id" = u64, Path, description = "The message"), With),
    responses((status = 204, description = "It is gone")),
    security(("bearer" = []))
)]
async fn take_back(
    State(desk): Shared,
    Extension(context): Ask,
    id: PathOf,
    query: QueryOf<With>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (viewer, store, _) = desk.viewer(&context, request).await?;
    let with = party(query.map_err(bad_query)?.0.with, "with")?;
    let own = &*viewer.account.account;
    let which = Which {
        tenant: &viewer.account.tenant,
        parties: (own, &with),
        id: id_of(id)?,
    };
    if store.remove(which, Some(own), now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(no_message())
}

/// Reports a message to operators.
///
/// They see what it said when it was reported. For a room's message `with` is its sender, and `room` the room.
#[utoipa::path(
    post,
    path = "/v1/messages/{id}/report",
    tag = "messages",
    params(("id" = u64, Path, description = "The message"), ReportedIn),
    request_body = ReasonBody,
    responses((status = 201, description = "The report is kept", body = ReportedBody)),
    security(("bearer" = []))
)]
async fn report(
    State(desk): Shared,
    Extension(context): Ask,
    id: PathOf,
    query: QueryOf<ReportedIn>,
    request: Request,
) -> Result<Response, ApiError> {
    let (viewer, store, request) = desk.viewer(&context, request).await?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let Query(place) = query.map_err(bad_query)?;
    let with = party(place.with, "with")?;
    let reason = fields.text("reason")?.unwrap_or_default();
    if !(1..=MAX_REASON).contains(&reason.chars().count()) || reason.contains('\0') {
        let message = format!("reason: must be a text of 1 to {MAX_REASON} characters");
        return Err(ApiError::bad_request("reason", message));
    }
    let own = viewer.account.account.to_string();
    let other = match place.room {
        Some(room) => {
            let room = party(room, "room")?;
            desk.check_room(&viewer, &room).await?;
            room
        }
        None => own.clone(),
    };
    let which = Which {
        tenant: &viewer.account.tenant,
        parties: (&with, &other),
        id: id_of(id)?,
    };
    let key = ResumeSecret::generate().session().to_string();
    let kept = store.report(which, &own, &reason, (&key, now())).await?;
    let id = kept.ok_or_else(no_message)?;
    Ok((StatusCode::CREATED, Json(ReportedBody { id })).into_response())
}

/// Where a reported message was said.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ReportedIn {
    /// Who said it.
    #[param(min_length = 1, max_length = 256)]
    with: String,
    /// The room in which it was said; left out: to the token's account.
    #[param(nullable = false, min_length = 1, max_length = 261)]
    room: Option<String>,
}
