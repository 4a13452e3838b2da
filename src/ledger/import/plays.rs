//! `date;user_id;region;track id;seconds`: what was watched, day by day.
//!
//! A row is known by its tenant, its five fields and its occurrence among equal rows of its file, so that equal rows
//! count and a file that is imported again adds nothing, in whatever order. To count equal rows of a file of any
//! length in bounded memory, rows are put aside by their hash first (`spill`).

use std::collections::HashMap;
use std::io::Read;

use aws_lc_rs::digest::{Context, SHA256};

use crate::db::Inserts;

use super::super::calendar::DAY_MS;
use super::super::now_ms;
use super::rows::{Header, Rows};
use super::spill::{Spill, Spilled};
use super::{BATCH, ImportError, Place, Reject, Run, id, insert, text};

/// The most seconds of one row: any sum of rows stays in 63 bits.
const MAX_SECONDS: i64 = 1_000_000_000;

/// Longest name of a region, in bytes.
const MAX_REGION_BYTES: usize = 64;

pub(super) async fn import<R: Read>(run: &mut Run<'_, R>, header: &Header) -> Result<(), ImportError> {
    let [date, user, region, track, seconds] =
        header.columns(["date", "user_id", "region", "track_id", "seconds"])?;
    let (place, width, dates) = (run.place, header.width(), &run.format.dates);
    let parse = |row: &Rows<R>| {
        if row.width() != width {
            return Err(Reject::new(
                "row",
                format!("has {} fields, the header {width}", row.width()),
            ));
        }
        let at = dates.read(text("date", row.field(date))?).ok_or_else(|| {
            let problem = format!(
                "is no date of the form {} (is --date-format missing?)",
                dates.text()
            );
            Reject::new("date", problem).for_lack_of("--date-format")
        })?;
        if at < 0 {
            return Err(Reject::new("date", "is before 1970"));
        }
        let seconds = text("seconds", row.field(seconds))?.trim();
        let seconds: i64 = seconds
            .parse()
            .map_err(|_| Reject::new("seconds", "is no whole number"))?;
        if !(1..=MAX_SECONDS).contains(&seconds) {
            return Err(Reject::new("seconds", "must be from 1 to 1000000000"));
        }
        let region = text("region", row.field(region))?.trim().to_uppercase();
        if region.len() > MAX_REGION_BYTES {
            return Err(Reject::new("region", "is longer than 64 bytes"));
        }
        let texts = [
            id("user_id", row.field(user))?,
            region,
            id("track id", row.field(track))?,
        ];
        Ok(Spilled {
            hash: hash(place.tenant, at, seconds, &texts),
            at,
            seconds,
            texts,
        })
    };
    let mut spill = Spill::new(place.scratch);
    while let Some(row) = run.next(parse)? {
        spill.add(&row)?;
    }
    let mut batch = Vec::with_capacity(BATCH);
    for part in spill.parts() {
        let (mut part, mut occurrences) = (part?, HashMap::new());
        while let Some(row) = part.next()? {
            let occurrence = occurrences.entry(row.hash).or_insert(0_u64);
            *occurrence += 1;
            batch.push((play_id(row.hash, *occurrence), row));
            if batch.len() == BATCH {
                write(run, place, &mut batch).await?;
            }
        }
    }
    write(run, place, &mut batch).await
}

/// The same for the same row of any file.
fn hash(tenant: &str, at: i64, seconds: i64, texts: &[String; 3]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    context.update(&at.to_le_bytes());
    context.update(&seconds.to_le_bytes());
    for text in [tenant, &texts[0], &texts[1], &texts[2]] {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text.as_bytes());
    }
    first(context)
}

/// The id of an occurrence of a row: 24 hex digits that begin as the row's hash, so that rows come in almost the order
/// of the table's index.
fn play_id(hash: [u8; 16], occurrence: u64) -> String {
    let mut id = hash;
    if occurrence > 1 {
        let mut context = Context::new(&SHA256);
        context.update(&hash);
        context.update(&occurrence.to_le_bytes());
        let other: [u8; 16] = first(context);
        id[4..].copy_from_slice(&other[4..]);
    }
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|half| char::from_digit(half.into(), 16));
    id[..12].iter().flat_map(|byte| digits(*byte)).flatten().collect()
}

fn first(context: Context) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    bytes
}

async fn write<R: Read>(
    run: &mut Run<'_, R>,
    place: Place<'_>,
    batch: &mut Vec<(String, Spilled)>,
) -> Result<(), ImportError> {
    if batch.is_empty() {
        return Ok(());
    }
    batch.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let now = now_ms();
    let rows = batch.len();
    let days = batch.iter().map(|(_, row)| row.at / DAY_MS).collect();
    let mut inserts = Inserts::new(
        "INSERT INTO plays (tenant, recorded_at, kind, id, user_id, region, content, started_at, seconds) VALUES ",
        " ON CONFLICT DO NOTHING",
    );
    for (id, row) in batch.drain(..) {
        inserts.add(|sql, first| {
            if first {
                sql.push("(").bind(place.tenant.to_owned()).push(", ").bind(now);
            } else {
                sql.push("($1, $2");
            }
            let [user, region, track] = row.texts;
            sql.push(", 'import', ").bind_all([id, user, region, track]);
            sql.push(", ").bind(row.at).push(", ").bind(row.seconds).push(")");
        });
    }
    let changed = insert(place, &days, inserts).await?;
    run.wrote(rows, changed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: [&str; 3]) -> [String; 3] {
        texts.map(str::to_owned)
    }

    #[test]
    fn an_id_is_its_rows_and_its_occurrences() {
        let row = hash("main", 5, 60, &texts(["a", "NL", "t"]));
        for other in [
            hash("other", 5, 60, &texts(["a", "NL", "t"])),
            hash("main", 6, 60, &texts(["a", "NL", "t"])),
            hash("main", 5, 61, &texts(["a", "NL", "t"])),
            hash("main", 5, 60, &texts(["aN", "L", "t"])),
        ] {
            assert_ne!(row, other);
        }
        let ids: Vec<_> = (1..=3).map(|occurrence| play_id(row, occurrence)).collect();
        assert!(
            ids.iter().all(|id| id.len() == 24 && id[..8] == ids[0][..8]),
            "{ids:?}"
        );
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert_eq!(ids[1], play_id(row, 2));
    }
}
