//! What a report rests on, added up by the database, and divided by the models.
//!
//! Owns: the sums of plays and fees. Does not: write a report (`report` does) or store anything.
//! Called by: `report`. Labels come from `labels` alone.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::config;
use crate::db::{DbError, Sql, Work};

use super::calendar::{DAY_MS, Day};
use super::days::{Stretch, stretches};
use super::labels::{LABEL, MISSING, push_labels};
use super::money::{Currency, net};
use super::royalties::{Cents, Model, Share, UserCentric, split};
use super::steps::Steps;

/// What a report is asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Whose plays.
    pub tenant: String,
    /// Plays that started on this day or later,
    pub from: Day,
    /// and before this one.
    pub to: Day,
    /// Only labels of plays in this region, in upper case, have rows of their own; none: all.
    pub region: Option<String>,
    /// Fees in this currency, and the plays of those who pay in it.
    pub currency: Currency,
}

/// The terms of the installation: `[ledger]`.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Share of each sales channel in basis points.
    pub shares: BTreeMap<String, u32>,
    /// Seconds from which a play counts.
    pub threshold: i64,
    /// Minor units from which a label is paid.
    pub floor: i64,
    /// The currency of fees that name none, and of users who are not known.
    pub home: Currency,
}

impl Terms {
    /// Those of the settings.
    #[must_use]
    pub fn new(settings: &config::Ledger) -> Self {
        Self {
            shares: settings.shares.clone(),
            threshold: settings.threshold.into(),
            floor: settings.floor.into(),
            home: Currency::parse(&settings.currency).expect("the settings were validated"),
        }
    }
}

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// All fees, less the channels' parts, in minor units.
    pub pool: i128,
    /// What was watched.
    pub seconds: BTreeMap<Share, i128>,
    /// What is paid.
    pub cents: Cents,
    /// What is paid to nobody,
    pub unallocated: i128,
    /// and how many users' it is.
    pub idle: i64,
    /// Tracks whose metadata is missing were watched.
    pub incomplete: bool,
    /// Users who watched and are not known.
    pub strangers: i64,
    /// Users who pay in other currencies.
    pub foreigners: i64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum NoFigures {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Users came by a channel whose share nobody set.
    #[error("ledger.shares has no share for the origin {0:?}")]
    NoShare(String),
}

/// Adds up and divides; `steps` is told how far it is.
///
/// # Errors
/// As [`NoFigures`] says.
pub async fn figures(
    work: &mut Work,
    question: &Question,
    model: Model,
    terms: &Terms,
    steps: &Steps,
) -> Result<Figures, NoFigures> {
    let fees = Fees::of(work, question, terms).await?;
    let mut figures = Figures {
        pool: fees.pool,
        foreigners: fees.foreigners,
        ..Figures::default()
    };
    match model {
        Model::ProRata => pro_rata(work, question, terms, &fees, &mut figures, steps).await?,
        Model::UserCentric => {
            steps.expect(1);
            user_centric(work, question, terms, &fees, &mut figures).await?;
            steps.step();
        }
    }
    figures.seconds.retain(|_, seconds| *seconds > 0);
    figures
        .cents
        .retain(|share, cents| *cents > 0 || figures.seconds.contains_key(share));
    for (share, cents) in &mut figures.cents {
        if matches!(share, Share::Label(_)) && *cents < i128::from(terms.floor) {
            figures.unallocated += std::mem::take(cents);
        }
    }
    figures.strangers = strangers(work, question, terms, &fees).await?;
    Ok(figures)
}

/// What subscribers pay.
struct Fees {
    pool: i128,
    payers: i64,
    foreigners: i64,
}

impl Fees {
    async fn of(work: &mut Work, question: &Question, terms: &Terms) -> Result<Self, NoFigures> {
        let mut sql = Sql::new(
            "SELECT currency, origin, fee, CAST(count(*) AS BIGINT) FROM subscribers WHERE tenant = ",
        );
        sql.bind(question.tenant.clone())
            .push(" GROUP BY currency, origin, fee");
        let mut fees = Self {
            pool: 0,
            payers: 0,
            foreigners: 0,
        };
        let mut unknown: Option<String> = None;
        work.each(sql.query(), |row| {
            let users: i64 = row.get(3);
            if row.get::<String, _>(0) != question.currency.code() {
                fees.foreigners += users;
                return;
            }
            let origin: String = row.get(1);
            match terms.shares.get(&origin) {
                Some(share) => fees.pool += net(row.get(2), *share) * i128::from(users),
                None => unknown = Some(origin),
            }
            fees.payers += users;
        })
        .await?;
        unknown.map_or(Ok(fees), |origin| Err(NoFigures::NoShare(origin)))
    }
}

/// The plays that count: user, content, whether outside the region, seconds. Corrections count with the play that they
/// correct.
fn push_watched(sql: &mut Sql, question: &Question, terms: &Terms, fees: &Fees, period: [i64; 2]) {
    sql.push("(SELECT user_id, content, ");
    push_outside(sql, question);
    sql.push(", seconds FROM ");
    if terms.threshold > 0 {
        sql.push(
            "(SELECT min(user_id) AS user_id, min(content) AS content, min(region) AS region, \
             CAST(sum(seconds) AS BIGINT) AS seconds FROM plays WHERE ",
        );
        push_period(sql, question, period);
        sql.push(" GROUP BY coalesce(corrects, id) HAVING sum(seconds) >= ")
            .bind(terms.threshold)
            .push(") p WHERE 1 = 1");
    } else {
        sql.push("plays p WHERE ");
        push_period(sql, question, period);
    }
    if fees.foreigners > 0 {
        push_payers(sql, question, terms);
    }
    sql.push(")");
}

/// Whether a row is outside the region that is asked for.
fn push_outside(sql: &mut Sql, question: &Question) {
    match &question.region {
        Some(region) => sql
            .push("CAST(CASE WHEN region = ")
            .bind(region.clone())
            .push(" THEN 0 ELSE 1 END AS BIGINT) AS outside"),
        None => sql.push("CAST(0 AS BIGINT) AS outside"),
    };
}

/// Plays that started from the first of these moments on, and before the second.
fn push_period(sql: &mut Sql, question: &Question, [from, to]: [i64; 2]) {
    sql.push("tenant = ").bind(question.tenant.clone());
    sql.push(" AND started_at >= ").bind(from);
    sql.push(" AND started_at < ").bind(to);
}

/// Who pays in another currency counts there.
fn push_payers(sql: &mut Sql, question: &Question, terms: &Terms) {
    let home = question.currency == terms.home;
    sql.push(if home {
        " AND NOT EXISTS ("
    } else {
        " AND EXISTS ("
    });
    sql.push("SELECT 1 FROM subscribers s WHERE s.tenant = ")
        .bind(question.tenant.clone())
        .push(" AND s.user_id = p.user_id AND s.currency ")
        .push(if home { "<> " } else { "= " })
        .bind(question.currency.code().to_owned())
        .push(")");
}

/// The share that a row is about: its columns are label, whether it is missing, whether outside, seconds.
fn share(row: &AnyRow, first: usize, incomplete: &mut bool) -> (Share, i128) {
    let (label, missing): (String, i64) = (row.get(first), row.get(first + 1));
    let (outside, seconds): (i64, i64) = (row.get(first + 2), row.get(first + 3));
    *incomplete |= missing != 0 && seconds > 0;
    let share = match (outside, label) {
        (0, label) if label.is_empty() => Share::Unlabelled,
        (0, label) => Share::Label(label),
        _ => Share::OutsideRegion,
    };
    (share, seconds.into())
}

/// Stretch by stretch: each is short, so that the work can end between two, and days whose sums are there cost no more than
/// those.
async fn pro_rata(
    work: &mut Work,
    question: &Question,
    terms: &Terms,
    fees: &Fees,
    figures: &mut Figures,
    steps: &Steps,
) -> Result<(), DbError> {
    let (from, to) = (question.from.start_ms() / DAY_MS, question.to.start_ms() / DAY_MS);
    // The sums know neither single plays nor users.
    let may_use_sums = terms.threshold == 0 && fees.foreigners == 0;
    let stretches = stretches(work, &question.tenant, from, to, may_use_sums).await?;
    steps.expect(stretches.len());
    for stretch in stretches {
        let sql = watched_in(stretch, question, terms, fees);
        work.each(sql.query(), |row| {
            let (share, seconds) = share(row, 0, &mut figures.incomplete);
            *figures.seconds.entry(share).or_default() += seconds;
        })
        .await?;
        steps.step();
    }
    figures.cents = split(fees.pool, &figures.seconds);
    let given: i128 = figures.cents.values().sum();
    figures.unallocated = fees.pool - given;
    let nobody_watched = figures.seconds.values().all(|seconds| *seconds <= 0);
    figures.idle = if nobody_watched { fees.payers } else { 0 };
    Ok(())
}

/// What was watched in a stretch, by label.
fn watched_in(stretch: Stretch, question: &Question, terms: &Terms, fees: &Fees) -> Sql {
    let Stretch { from, to, summed } = stretch;
    let mut sql = Sql::new("SELECT ");
    // Added up by content first: there are fewer contents than plays to look up.
    sql.push(LABEL).push(", ").push(MISSING);
    sql.push(", c.outside, CAST(sum(c.seconds) AS BIGINT) FROM (SELECT content, outside, sum(seconds) AS seconds FROM ");
    if summed {
        sql.push("(SELECT content, ");
        push_outside(&mut sql, question);
        sql.push(", seconds FROM play_days WHERE tenant = ")
            .bind(question.tenant.clone());
        sql.push(" AND day >= ").bind(from);
        sql.push(" AND day < ").bind(to).push(")");
    } else {
        let period = [from, to].map(|day| day.saturating_mul(DAY_MS));
        push_watched(&mut sql, question, terms, fees, period);
    }
    sql.push(" w GROUP BY content, outside) c");
    push_labels(&mut sql, "c.content", &question.tenant);
    sql.push(" GROUP BY 1, 2, 3");
    sql
}

async fn user_centric(
    work: &mut Work,
    question: &Question,
    terms: &Terms,
    fees: &Fees,
    figures: &mut Figures,
) -> Result<(), DbError> {
    let mut sql = Sql::new(
        "SELECT u.user_id, s.fee, s.origin, u.label, u.missing, u.outside, u.seconds FROM (SELECT \
         w.user_id AS user_id, ",
    );
    sql.push(LABEL).push(" AS label, ").push(MISSING);
    sql.push(" AS missing, w.outside, CAST(sum(w.seconds) AS BIGINT) AS seconds FROM ");
    let period = [question.from.start_ms(), question.to.start_ms()];
    push_watched(&mut sql, question, terms, fees, period);
    sql.push(" w");
    push_labels(&mut sql, "w.content", &question.tenant);
    sql.push(" GROUP BY 1, 2, 3, 4) u LEFT JOIN subscribers s ON s.user_id = u.user_id AND s.tenant = ")
        .bind(question.tenant.clone())
        .push(" ORDER BY u.user_id");
    let mut split = Splitting::default();
    work.each(sql.query(), |row| {
        let user: String = row.get(0);
        if split.user.as_deref() != Some(&*user) {
            split.close();
            let (fee, origin): (Option<i64>, Option<String>) = (row.get(1), row.get(2));
            let share = origin.and_then(|origin| terms.shares.get(&origin).copied());
            split.net = fee.zip(share).map(|(fee, share)| net(fee, share));
            split.user = Some(user);
        }
        let (share, seconds) = share(row, 3, &mut figures.incomplete);
        *figures.seconds.entry(share.clone()).or_default() += seconds;
        *split.watched.entry(share).or_default() += seconds;
    })
    .await?;
    split.close();
    figures.unallocated = fees.pool - split.each.given();
    figures.idle = fees.payers - split.watchers;
    figures.cents = split.each.finish();
    Ok(())
}

/// The user whose rows are being read.
#[derive(Default)]
struct Splitting {
    user: Option<String>,
    /// None: not known to pay.
    net: Option<i128>,
    watched: BTreeMap<Share, i128>,
    each: UserCentric,
    /// Users whose net was split.
    watchers: i64,
}

impl Splitting {
    fn close(&mut self) {
        let watched = std::mem::take(&mut self.watched);
        if let Some(net) = self.net.take() {
            self.watchers += i64::from(self.each.add(net, &watched));
        }
    }
}

async fn strangers(work: &mut Work, question: &Question, terms: &Terms, fees: &Fees) -> Result<i64, DbError> {
    if question.currency != terms.home && fees.foreigners > 0 {
        return Ok(0);
    }
    // From user to user through the index: it costs what there are of users, not of plays.
    let mut sql = Sql::new("WITH RECURSIVE u (user_id) AS (SELECT min(user_id) FROM plays WHERE tenant = ");
    sql.bind(question.tenant.clone())
        .push(" UNION ALL SELECT (SELECT min(p.user_id) FROM plays p WHERE p.tenant = ")
        .bind(question.tenant.clone())
        .push(" AND p.user_id > u.user_id) FROM u WHERE u.user_id IS NOT NULL) ");
    sql.push("SELECT CAST(count(*) AS BIGINT) FROM u WHERE u.user_id IS NOT NULL ");
    sql.push("AND NOT EXISTS (SELECT 1 FROM subscribers s WHERE s.user_id = u.user_id AND s.tenant = ")
        .bind(question.tenant.clone())
        .push(") AND EXISTS (SELECT 1 FROM plays WHERE user_id = u.user_id AND ");
    push_period(
        &mut sql,
        question,
        [question.from.start_ms(), question.to.start_ms()],
    );
    sql.push(")");
    Ok(work.fetch_one(sql.query()).await?.get(0))
}
