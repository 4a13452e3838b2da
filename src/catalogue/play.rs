//! `/v1/content/{content}/play`: where a content comes from, and a slot to play it in.
//!
//! The play is a session without a socket: it takes its slot with the answer, and the watch socket, or heartbeats, take
//! it over under the same session. Owns: the route. Called by: the catalogue's router.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::error::{ApiError, ErrorWith};
use crate::api::grant::Denied;
use crate::api::observe::Context;
use crate::lease::shelf::{Barred, Sight};
use crate::protocol::id::SessionId;
use crate::protocol::start::{BadParameter, Start};

use super::Catalogue;
use super::contents::ContentPath;
use super::item::{Source, named, unknown};
use super::shape::Play;

/// What may be said of a play; everything else is ignored, as on the watch socket.
const PARAMETERS: [&str; 4] = ["device", "device_name", "device_class", "takeover"];

/// What is escaped in a file's id: its own letters (base64url) stand as they are.
const FILE_ID: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The query of [`play`].
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "only described: `Said` reads it, to name what is wrong with it"
)]
struct Parameters {
    /// The device; without it every start is a device of its own. The same device ends its session before.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    device: Option<String>,
    /// Its name for people.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    device_name: Option<String>,
    /// Its class, such as `tv`.
    #[param(nullable = false, min_length = 1, max_length = 64)]
    device_class: Option<String>,
    /// The session, of the same account, whose slot is taken over.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    takeover: Option<String>,
}

/// What 403 says.
const NOT_PLAYED: &str = "`stream_limit_reached`: no slot is free, with who holds them. Others, such as \
                          `account_blocked`, `takeover_forbidden` and `content_forbidden`, come without";

type Shared = State<Arc<Catalogue>>;

/// What a player says about itself and whom it takes over.
#[derive(Default)]
struct Said {
    device: Option<String>,
    device_name: Option<String>,
    device_class: Option<String>,
    takeover: Option<SessionId>,
}

impl Said {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut found: [Option<String>; PARAMETERS.len()] = Default::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(at) = PARAMETERS.iter().position(|known| *known == name) else {
                continue;
            };
            if found[at].replace(value.into_owned()).is_some() {
                let (field, problem) = (PARAMETERS[at], "given twice".to_owned());
                return Err(BadParameter { field, problem }.into());
            }
        }
        let [device, device_name, device_class, takeover] = found;
        let takeover = takeover.map(|text| {
            SessionId::parse(&text)
                .ok_or_else(|| ApiError::bad_request("takeover", "takeover must be a session"))
        });
        Ok(Self {
            device,
            device_name,
            device_class,
            takeover: takeover.transpose()?,
        })
    }
}

/// Plays a content: its source, and a slot.
///
/// The slot is kept as one of `POST /v1/sessions`: by heartbeats, or by the watch socket, which `watch_url` opens. The
/// scope is `watch`. 404 `content_unknown`: no slot is taken.
#[utoipa::path(
    get,
    path = "/v1/content/{content}/play",
    tag = "content",
    params(("content" = String, Path, description = "The content"), Parameters),
    responses(
        (status = 200, description = "The slot is the player's", body = Play<'static>),
        (status = 403, description = NOT_PLAYED, body = ErrorWith<Denied>),
    ),
    security(("bearer" = []))
)]
pub(super) async fn play(
    State(catalogue): Shared,
    Extension(context): Extension<Context>,
    content: ContentPath,
    request: Request,
) -> Result<Response, ApiError> {
    start(&catalogue, &context, content, request).await
}

/// The same for clients that keep GET for what changes nothing.
#[utoipa::path(
    post,
    path = "/v1/content/{content}/play",
    tag = "content",
    params(("content" = String, Path, description = "The content"), Parameters),
    responses(
        (status = 200, description = "The slot is the player's", body = Play<'static>),
        (status = 403, description = NOT_PLAYED, body = ErrorWith<Denied>),
    ),
    security(("bearer" = []))
)]
pub(super) async fn play_by_post(
    State(catalogue): Shared,
    Extension(context): Extension<Context>,
    content: ContentPath,
    request: Request,
) -> Result<Response, ApiError> {
    start(&catalogue, &context, content, request).await
}

async fn start(
    catalogue: &Catalogue,
    context: &Context,
    content: ContentPath,
    request: Request,
) -> Result<Response, ApiError> {
    let api = &catalogue.api;
    let (claims, request) = api.watcher(context, request).await?;
    let (parts, _) = request.into_parts();
    let id = named(content)?;
    let said = Said::parse(parts.uri.query().unwrap_or_default())?;
    // There is a shelf wherever there is a database.
    api.db()?;
    let shelf = catalogue.shelf.as_ref().ok_or_else(unknown)?;
    let known = shelf.find(&claims.tenant, &id).await?.ok_or_else(unknown)?;
    if !Sight::of(&claims).shows(&known.roles, &known.plans) {
        return Err(Barred::Hidden.into());
    }
    let device = said.device.clone();
    let start = Start::new(Some(id.clone()), said.device, said.device_name, said.device_class)?;
    let begun = api.begin(context, claims, start, said.takeover).await?;
    let place = place(&parts);
    let body = Play {
        grant: begun.grant(),
        source: address(&known.source, place.as_ref()),
        watch_url: watch_url(place.as_ref(), &id, device.as_deref(), &begun.secret()),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Where a player fetches it: a file of the installation comes from this very host, with the ticket.
fn address(source: &Source, place: Option<&Authority>) -> String {
    match source {
        Source::Url(url) => url.clone(),
        Source::File(id) => {
            let path = format!("/v1/media/{}", utf8_percent_encode(id, FILE_ID));
            place.map_or_else(|| path.clone(), |place| format!("https://{place}{path}"))
        }
    }
}

/// The socket that takes the session over. The token goes beside it: in the header or as a subprotocol.
fn watch_url(place: Option<&Authority>, content: &str, device: Option<&str>, secret: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("content", content);
    if let Some(device) = device {
        query.append_pair("device", device);
    }
    let query = query.append_pair("resume", secret).finish();
    let path = format!("/v1/watch?{query}");
    place.map_or_else(|| path.clone(), |place| format!("wss://{place}{path}"))
}

/// The host that was asked.
fn place(parts: &Parts) -> Option<Authority> {
    let host = |headers: &HeaderMap| headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    host(&parts.headers).or_else(|| parts.uri.authority().cloned())
}
