//! `GET /v1/reports/concurrency`: how many slots are used and asked for, and what another limit would change.
//!
//! Owns: adding up what nodes counted (`gateway::attempts`) in rows, and the report. Called by: `Ledger`, every few seconds;
//! `desk`'s router.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::Row;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::bad_query;
use crate::db::{Db, DbError, Inserts, Sql};
use crate::gateway::attempts::Attempts;

use super::calendar::DAY_MS;
use super::desk::Desk;
use super::insight::{PeriodQuery, Scope};

/// Adds what was counted since the last time to today's rows. What cannot be written is counted again later.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn write(db: &Db, attempts: &Attempts) -> Result<(), DbError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let today = i64::try_from(since.as_millis()).unwrap_or(i64::MAX) / DAY_MS;
    // In one order, so that two nodes never wait for each other.
    let counted = attempts.take();
    if counted.is_empty() {
        return Ok(());
    }
    let mut inserts = Inserts::new(
        "INSERT INTO attempts (day, tenant, plan, asked, granted, refused) VALUES ",
        " ON CONFLICT (tenant, day, plan, asked) DO UPDATE SET granted = attempts.granted + excluded.granted, \
         refused = attempts.refused + excluded.refused",
    );
    for (asked, count) in &counted {
        inserts.add(|sql, first| {
            if first {
                sql.push("(").bind(today);
            } else {
                sql.push("($1");
            }
            let texts = [asked.tenant.to_string(), asked.plan.to_string()];
            sql.push(", ").bind_all(texts).push(", ");
            sql.bind_all([
                i64::from(asked.slot),
                number(count.granted),
                number(count.refused),
            ])
            .push(")");
        });
    }
    let done = insert(db, inserts).await;
    if done.is_err() {
        attempts.put_back(counted);
    }
    done
}

async fn insert(db: &Db, inserts: Inserts) -> Result<(), DbError> {
    let mut work = db.begin().await?;
    inserts.run(&mut work).await?;
    work.commit().await
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Starts by the slot that they took or asked for.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = ConcurrencyLevel)]
pub(super) struct Level {
    /// The slot of the account, from 1: a start beside two sessions asks for the third.
    slot: i64,
    /// Starts that took it: how many slots were used then.
    used: i64,
    /// Starts that asked for it: those, and the refused ones.
    asked: i64,
}

/// What another limit would have changed.
#[derive(Serialize, ToSchema)]
#[schema(as = ConcurrencyLimit)]
pub(super) struct Limit {
    /// A limit of so many slots
    limit: i64,
    /// would have saved so many refusals.
    saved: i64,
}

/// The starts of a plan.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = ConcurrencyPlan)]
pub(super) struct Plan {
    /// As tokens name it; empty: none.
    plan: String,
    /// Starts that got a slot.
    granted: i64,
    /// Starts that the account's limit refused.
    refused: i64,
    /// By slot, from the first.
    levels: Vec<Level>,
    /// For each limit at which a refusal is saved, how many are, on what was in use at the time.
    what_if: Vec<Limit>,
}

/// How many slots are used and asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = ConcurrencyReport)]
pub(super) struct Concurrency {
    /// Of all plans, by slot.
    levels: Vec<Level>,
    /// By plan.
    plans: Vec<Plan>,
}

/// How many slots are used and asked for, and what another limit would change, by plan. Scope `finance` or `admin`.
///
/// Starts are here some seconds after they were; by the day of the request, UTC.
#[utoipa::path(
    get,
    path = "/v1/reports/concurrency",
    tag = "ledger",
    params(PeriodQuery),
    responses((status = 200, description = "What was used and asked for", body = Concurrency)),
    security(("bearer" = []))
)]
pub(super) async fn concurrency(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<PeriodQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let scope = query.scope(&claims)?;
    let Scope { tenant, from, to, .. } = &scope;
    let mut sql = Sql::new(
        "SELECT plan, asked, CAST(sum(granted) AS BIGINT), CAST(sum(refused) AS BIGINT) FROM attempts WHERE tenant = ",
    );
    sql.bind(tenant.clone()).push(" AND day >= ").bind(from / DAY_MS);
    sql.push(" AND day < ").bind(to / DAY_MS);
    sql.push(" GROUP BY plan, asked");
    let place = desk.place("concurrency", &claims, tenant)?;
    let mut work = desk.rows().await?;
    let rows = place.run(work.fetch_all(sql.query())).await?;
    let counts = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)));
    Ok(Json(report(counts)).into_response())
}

/// Of plan, slot, granted and refused.
fn report(counts: impl Iterator<Item = (String, i64, i64, i64)>) -> Concurrency {
    let mut plans: BTreeMap<String, BTreeMap<i64, [i64; 2]>> = BTreeMap::new();
    let mut all: BTreeMap<i64, [i64; 2]> = BTreeMap::new();
    for (plan, slot, granted, refused) in counts {
        for levels in [plans.entry(plan).or_default(), &mut all] {
            let level = levels.entry(slot).or_default();
            level[0] += granted;
            level[1] += refused;
        }
    }
    let plans = plans.into_iter().map(|(plan, levels)| {
        let sum = |which: usize| levels.values().map(|level| level[which]).sum();
        let mut saved = 0;
        let refused = levels.iter().filter(|(_, [_, refused])| *refused > 0);
        let what_if = refused.map(|(slot, [_, refused])| {
            saved += refused;
            Limit { limit: *slot, saved }
        });
        Plan {
            plan,
            granted: sum(0),
            refused: sum(1),
            what_if: what_if.collect(),
            levels: shown(&levels),
        }
    });
    Concurrency {
        plans: plans.collect(),
        levels: shown(&all),
    }
}

fn shown(levels: &BTreeMap<i64, [i64; 2]>) -> Vec<Level> {
    let levels = levels.iter().map(|(slot, [granted, refused])| Level {
        slot: *slot,
        used: *granted,
        asked: granted + refused,
    });
    levels.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_saves_what_asked_for_no_more() {
        let row = |plan: &str, slot, granted, refused| (plan.to_owned(), slot, granted, refused);
        let report = report(
            [
                row("basic", 1, 10, 0),
                row("basic", 2, 4, 3),
                row("basic", 4, 0, 2),
                row("", 2, 1, 5),
            ]
            .into_iter(),
        );
        let saved = |at: usize| -> Vec<_> {
            let what_if = report.plans[at].what_if.iter();
            what_if.map(|limit| (limit.limit, limit.saved)).collect()
        };
        assert_eq!((saved(0), saved(1)), (vec![(2, 5)], vec![(2, 3), (4, 5)]));
        assert_eq!((report.plans[1].granted, report.plans[1].refused), (14, 5));
        let all: Vec<_> = report
            .levels
            .iter()
            .map(|level| (level.slot, level.used, level.asked))
            .collect();
        assert_eq!(all, [(1, 10, 10), (2, 5, 13), (4, 0, 2)]);
    }
}
