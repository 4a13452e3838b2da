//! `GET /v1/plays/export`: plays as CSV, however many, page by page out of the database.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use serde::Deserialize;
use sqlx::Row;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::bad_query;
use crate::db::{DbError, Sql};

use super::calendar::Day;
use super::desk::{Desk, tenant_of};
use super::plays::{COLUMNS, Play};
use super::royalty_routes::{day, spreadsheet};
use super::running::Place;
use super::sheet::Sheet;

/// Rows of a part.
const PART: i64 = 2000;

/// Which plays are exported.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// Those that began on this day or later,
    #[param(format = Date)]
    from: String,
    /// and before this one.
    #[param(format = Date)]
    to: String,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

/// An export under way.
struct Export {
    desk: Arc<Desk>,
    tenant: String,
    to: Day,
    /// After which row it goes on; none: it is done.
    after: Option<(i64, String)>,
    titled: bool,
    place: Place,
}

impl Export {
    async fn part(&mut self) -> Result<Option<Bytes>, DbError> {
        let Some((at, id)) = self.after.take() else {
            return Ok(None);
        };
        // The answer has begun: it is cut off, which its reader notices.
        if self.place.is_cancelled() {
            return Err(DbError::Away);
        }
        let mut sql = Sql::new("SELECT ");
        sql.push(COLUMNS)
            .push(", p.started_at FROM plays p WHERE p.tenant = ");
        sql.bind(self.tenant.clone())
            .push(" AND p.started_at >= ")
            .bind(at);
        sql.push(" AND p.started_at < ").bind(self.to.start_ms());
        sql.push(" AND (p.started_at > ")
            .bind(at)
            .push(" OR p.id > ")
            .bind(id);
        sql.push(") ORDER BY p.started_at, p.id LIMIT ").bind(PART);
        let patience = self.desk.settings.report_timeout;
        let db = self.desk.api.db.as_ref().ok_or(DbError::Away)?;
        let rows = db.connect_for(patience).await?.fetch_all(sql.query()).await?;
        let mut sheet = if self.titled {
            Sheet::part()
        } else {
            Sheet::new(&TITLES)
        };
        self.titled = true;
        for row in &rows {
            let play = Play::of(row);
            write(&mut sheet, &play);
        }
        if rows.len() as i64 == PART {
            self.after = rows.last().map(|row| (row.get(18), row.get(0)));
        }
        Ok(Some(sheet.finish().into()))
    }
}

const TITLES: [&str; 18] = [
    "id",
    "kind",
    "corrects",
    "user",
    "content",
    "region",
    "started_at",
    "ended_at",
    "seconds",
    "counted",
    "device",
    "device_name",
    "device_class",
    "plan",
    "position_ms",
    "code",
    "recorded_at",
    "recorded_by",
];

fn write(sheet: &mut Sheet, play: &Play) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    sheet.text(&play.id).text(&play.kind).text(&text(&play.corrects));
    sheet.text(&play.user).text(&play.content).text(&play.region);
    sheet.number(&play.started_at).number(text(&play.ended_at));
    sheet
        .number(play.seconds.to_string())
        .number(play.counted.to_string());
    for field in [&play.device, &play.device_name, &play.device_class, &play.plan] {
        sheet.text(&text(field));
    }
    sheet.number(play.position_ms.map(|ms| ms.to_string()).unwrap_or_default());
    sheet
        .text(&text(&play.code))
        .number(&play.recorded_at)
        .text(&text(&play.recorded_by));
    sheet.end();
}

/// The plays of a period, as CSV. Scope `finance` or `admin`.
///
/// A field that a spreadsheet would take for a formula has an apostrophe before it.
#[utoipa::path(
    get,
    path = "/v1/plays/export",
    tag = "ledger",
    params(ExportQuery),
    responses((status = 200, description = "The plays", body = String, content_type = "text/csv")),
    security(("bearer" = []))
)]
pub(super) async fn export(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<ExportQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let mut export = Export {
        to: day("to", &query.to)?,
        after: Some((day("from", &query.from)?.start_ms(), String::new())),
        titled: false,
        place: desk.place("export", &claims, &tenant)?,
        tenant,
        desk,
    };
    // A database that is away is told before the answer begins.
    desk_is_there(&export)?;
    let first = export.part().await?.unwrap_or_default();
    let rest = try_unfold(export, async |mut export| {
        let part = export.part().await?;
        Ok::<_, DbError>(part.map(|part| (part, export)))
    });
    let first = futures_util::stream::iter([Ok(first)]);
    Ok(spreadsheet(Body::from_stream(futures_util::StreamExt::chain(
        first, rest,
    ))))
}

fn desk_is_there(export: &Export) -> Result<(), ApiError> {
    export.desk.db().map(drop)
}
