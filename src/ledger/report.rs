//! The royalty report: its three forms, and what it says about itself.
//!
//! Owns: the JSON of interface, the table for people and the CSV. Does not: add up (`figures` does).
//! Called by: the routes, the command `report royalties`, `statements`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::db::Work;

use super::figures::{Figures, NoFigures, Question, Terms, figures};
use super::royalties::{Model, Share};
use super::sheet::Sheet;
use super::steps::Steps;

/// Who is paid what for a period. Rows, unlabelled, outside the region and unallocated add up to the pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = RoyaltyReport)]
pub struct Report {
    /// `pro_rata` or `user_centric`.
    pub model: String,
    /// The first day.
    pub from: String,
    /// The day after the last.
    pub to: String,
    /// Whose labels have rows, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The currency of every amount (ISO 4217).
    pub currency: String,
    /// What all subscribers pay, less the channels' parts.
    pub pool: String,
    /// Whether tracks were watched whose metadata is missing.
    pub incomplete: bool,
    /// One for each label, in the order of their bytes.
    pub rows: Vec<LabelRow>,
    /// Tracks without a label.
    pub unlabelled: Part,
    /// Everything outside the region; absent when none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_region: Option<Part>,
    /// What is paid to nobody.
    pub unallocated: Idle,
    /// What a reader should know; absent when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A label's part.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = RoyaltyRow)]
pub struct LabelRow {
    /// The label.
    pub label: String,
    /// Seconds watched.
    pub seconds: i64,
    /// What it is paid.
    pub amount: String,
}

/// A part that is no label's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = RoyaltyPart)]
pub struct Part {
    /// Seconds watched.
    pub seconds: i64,
    /// What falls to it.
    pub amount: String,
}

/// Subscribers who watched nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = RoyaltyIdle)]
pub struct Idle {
    /// How many.
    pub users: i64,
    /// What they paid, and what fell below the floor.
    pub amount: String,
}

impl Report {
    /// Adds up and writes; `steps` is told how far it is. `work` reads the rows of one moment.
    ///
    /// # Errors
    /// As [`NoFigures`] says.
    pub async fn of(
        work: &mut Work,
        question: &Question,
        model: Model,
        terms: &Terms,
        steps: &Steps,
    ) -> Result<Self, NoFigures> {
        let figures = figures(work, question, model, terms, steps).await?;
        Ok(Self::write(question, model, &figures))
    }

    fn write(question: &Question, model: Model, figures: &Figures) -> Self {
        let amount = |cents: i128| question.currency.write(cents);
        let seconds = |share: &Share| {
            let seconds = figures.seconds.get(share).copied().unwrap_or_default();
            i64::try_from(seconds).unwrap_or(i64::MAX)
        };
        let paid = |share: &Share| amount(figures.cents.get(share).copied().unwrap_or_default());
        let part = |share: &Share| Part {
            seconds: seconds(share),
            amount: paid(share),
        };
        let rows = figures.seconds.keys().filter_map(|share| match share {
            Share::Label(label) => Some(LabelRow {
                label: label.clone(),
                seconds: seconds(share),
                amount: paid(share),
            }),
            Share::Unlabelled | Share::OutsideRegion => None,
        });
        Self {
            model: model.name().to_owned(),
            from: question.from.to_string(),
            to: question.to.to_string(),
            region: question.region.clone(),
            currency: question.currency.to_string(),
            pool: amount(figures.pool),
            incomplete: figures.incomplete,
            rows: rows.collect(),
            unlabelled: part(&Share::Unlabelled),
            outside_region: question.region.as_ref().map(|_| part(&Share::OutsideRegion)),
            unallocated: Idle {
                users: figures.idle,
                amount: amount(figures.unallocated),
            },
            warnings: warnings(figures),
        }
    }

    /// The JSON text, in one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers have a form in JSON")
    }

    /// Kind, label, seconds and amount of every line, the pool last.
    #[must_use]
    pub fn lines(&self) -> Vec<[String; 4]> {
        let line = |kind: &str, label: &str, seconds: Option<i64>, amount: &str| {
            let seconds = seconds.map(|seconds| seconds.to_string()).unwrap_or_default();
            [kind.to_owned(), label.to_owned(), seconds, amount.to_owned()]
        };
        let rows = self.rows.iter();
        let mut lines: Vec<_> = rows
            .map(|row| line("label", &row.label, Some(row.seconds), &row.amount))
            .collect();
        let parts = [
            ("unlabelled", Some(&self.unlabelled)),
            ("outside_region", self.outside_region.as_ref()),
        ];
        for (kind, part) in parts {
            lines.extend(part.map(|part| line(kind, "", Some(part.seconds), &part.amount)));
        }
        lines.push(line("unallocated", "", None, &self.unallocated.amount));
        lines.push(line("pool", "", None, &self.pool));
        lines
    }

    /// The lines as CSV, with the currency.
    #[must_use]
    pub fn csv(&self) -> Vec<u8> {
        let mut sheet = Sheet::new(&["kind", "label", "seconds", "amount", "currency"]);
        for [kind, label, seconds, amount] in self.lines() {
            sheet.text(&kind).text(&label).number(&seconds).number(&amount);
            sheet.text(&self.currency).end();
        }
        sheet.finish()
    }
}

fn warnings(figures: &Figures) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |count: i64, what: &str| {
        if count > 0 {
            warnings.push(format!("{count} {what}"));
        }
    };
    warn(
        figures.strangers,
        "users who watched are no subscribers: their seconds count, and no fee",
    );
    warn(
        figures.foreigners,
        "subscribers pay in another currency: neither their fees nor their seconds are here",
    );
    if figures.incomplete {
        warnings.push("tracks were watched whose metadata is missing: they count as unlabelled".to_owned());
    }
    warnings
}
