//! `track id;track name;label`: what tracks are called, and whose they are.

use std::collections::BTreeSet;
use std::io::Read;

use crate::db::Inserts;

use super::rows::{Header, Rows};
use super::{ImportError, Reject, Run, id, insert, push_first, text};

struct Track {
    name: String,
    label: String,
}

pub(super) async fn import<R: Read>(run: &mut Run<'_, R>, header: &Header) -> Result<(), ImportError> {
    let [track, name, label] = header.columns(["track_id", "track_name", "label"])?;
    let (place, width) = (run.place, header.width());
    let parse = |row: &Rows<R>| {
        if row.width() != width {
            return Err(Reject::new(
                "row",
                format!("has {} fields, the header {width}", row.width()),
            ));
        }
        let found = Track {
            name: text("track name", row.field(name))?.trim().to_owned(),
            label: text("label", row.field(label))?.trim().to_owned(),
        };
        Ok((id("track id", row.field(track))?, found))
    };
    loop {
        let batch = run.batch(parse)?;
        if batch.is_empty() {
            return Ok(());
        }
        let rows = batch.len();
        let mut inserts = Inserts::new(
            "INSERT INTO tracks (tenant, id, name, label) VALUES ",
            " ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name, label = excluded.label \
             WHERE tracks.name <> excluded.name OR tracks.label <> excluded.label",
        );
        for (id, track) in batch {
            inserts.add(|sql, first| {
                push_first(sql, first, place.tenant);
                sql.bind_all([id, track.name, track.label]).push(")");
            });
        }
        let changed = insert(place, &BTreeSet::new(), inserts).await?;
        run.wrote(rows, changed);
    }
}
