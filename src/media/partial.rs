//! An upload that is not whole: what came of it, in pieces, until the last byte makes it a file (`assembly`).
//!
//! Owns: the tables `file_uploads` and `file_pieces`, and that one request at a time appends, on any node. Does not: speak
//! tus (`tus` does). Called by: `tus`, and `sweep` for those that nobody went on with.
//!
//! Each piece is an object of its own and is counted only when it is in the store, so that a crash loses what came since
//! the last piece and nothing else.
//!
//! Over 400 lines: the life of one upload, from its announcement to its end, with the statements that belong to each step.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::api::error::ApiError;
use crate::db::{Db, DbError, Sql};

use super::Media;
use super::file::now;
use super::files::{self, signed};
use super::quota::Place;
use super::refusal::{cut, full};
use super::source::{Source, SourceError};
use super::store::Store;
use super::tus::versioned;
use super::upload::LONGEST;
use super::viewer::Person;

/// A piece, in bytes: what one upload costs in memory, and what a crash may lose of it.
const PIECE_BYTES: usize = 8 * 1024 * 1024;

/// How long an upload stays claimed by a request that is not heard of any more; renewed with each piece.
const CLAIM: Duration = Duration::from_secs(60);

/// Uploads that one pass of the background removes.
const BATCH: i64 = 100;

const COLUMNS: &str = "id, tenant, owner, object_key, length, received, metadata, file_id, expires_at";

/// An upload.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    /// Its id.
    pub(super) id: String,
    /// Whose tenant's.
    pub(super) tenant: String,
    /// The account that announced it.
    pub(super) owner: String,
    /// Where the file will be.
    pub(super) key: String,
    /// Bytes that were announced.
    pub(super) length: u64,
    /// Bytes that came.
    pub(super) received: u64,
    /// `Upload-Metadata` as it came.
    pub(super) metadata: String,
    /// The file that it became.
    pub(super) file: Option<String>,
    /// When it is removed unless somebody goes on with it, Unix milliseconds.
    pub(super) expires_at: i64,
}

/// What the bytes of one request must hash to.
pub(super) struct Checksum {
    context: digest::Context,
    expected: Vec<u8>,
}

/// A piece that is in the store.
pub(super) struct Piece {
    start: u64,
    pub(super) key: String,
    pub(super) size: u64,
}

/// Cuts a body into pieces. Each is allocated once, as large as it will be: one that grew would cost twice its size.
#[derive(Default)]
struct Cutter(BytesMut);

impl Cutter {
    /// Takes bytes until a piece is whole; none: there are no more. `room`: how many may still come.
    fn cut(&mut self, bytes: &mut Bytes, room: u64) -> Option<Bytes> {
        if bytes.is_empty() {
            return None;
        }
        if self.0.is_empty() {
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            self.0.reserve(PIECE_BYTES.min(room));
        }
        let more = bytes.len().min(PIECE_BYTES - self.0.len());
        self.0.extend_from_slice(&bytes.split_to(more));
        (self.0.len() == PIECE_BYTES).then(|| self.0.split().freeze())
    }
}

impl Checksum {
    /// By this algorithm.
    #[must_use]
    pub(super) fn new(algorithm: &'static digest::Algorithm, expected: Vec<u8>) -> Self {
        Self {
            context: digest::Context::new(algorithm),
            expected,
        }
    }
}

impl Partial {
    fn of(row: &AnyRow) -> Self {
        let number = |name: &str| u64::try_from(row.get::<i64, _>(name)).unwrap_or_default();
        Self {
            id: row.get("id"),
            tenant: row.get("tenant"),
            owner: row.get("owner"),
            key: row.get("object_key"),
            length: number("length"),
            received: number("received"),
            metadata: row.get("metadata"),
            file: row.get("file_id"),
            expires_at: row.get("expires_at"),
        }
    }
}

impl Media {
    fn next_end(&self) -> i64 {
        now() + i64::try_from(self.settings.partial_life.as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Writes an upload down, and counts its length.
    pub(super) async fn announce_partial(
        &self,
        person: &Person,
        length: u64,
        metadata: &str,
    ) -> Result<Partial, ApiError> {
        let partial = Partial {
            id: super::fresh_id(),
            tenant: person.tenant.to_string(),
            owner: person.account.to_string(),
            key: Store::fresh_key(),
            length,
            received: 0,
            metadata: metadata.to_owned(),
            file: None,
            expires_at: self.next_end(),
        };
        let mut work = self.api.db()?.begin().await?;
        if !files::charge(&mut work, &partial.tenant, signed(length), self.quota.bytes()).await? {
            return Err(full());
        }
        let mut sql = Sql::new(
            "INSERT INTO file_uploads (id, tenant, owner, object_key, metadata, length, received, writer, \
             writing_until, expires_at) VALUES (",
        );
        sql.bind_all([
            &*partial.id,
            &*partial.tenant,
            &*partial.owner,
            &*partial.key,
            &*partial.metadata,
        ]);
        sql.push(", ")
            .bind(signed(length))
            .push(", 0, '', 0, ")
            .bind(partial.expires_at)
            .push(")");
        work.execute(sql.query()).await?;
        work.commit().await?;
        Ok(partial)
    }

    /// An upload of a person, by its id.
    pub(super) async fn find_partial(&self, person: &Person, id: &str) -> Result<Option<Partial>, ApiError> {
        let mut sql = Sql::new("SELECT ");
        sql.push(COLUMNS)
            .push(" FROM file_uploads WHERE tenant = ")
            .bind(&*person.tenant);
        sql.push(" AND owner = ").bind(&*person.account);
        sql.push(" AND expires_at > ")
            .bind(now())
            .push(" AND id = ")
            .bind(id);
        let row = self.api.db()?.fetch_optional(sql.query()).await?;
        Ok(row.as_ref().map(Partial::of))
    }

    /// Takes more of an upload, and makes it a file when that was the last.
    pub(super) async fn go_on(
        self: Arc<Self>,
        partial: Partial,
        offset: u64,
        body: Body,
        checksum: Option<Checksum>,
        place: Place,
    ) -> Result<Partial, ApiError> {
        let db = self.api.db()?;
        if let Some(file) = &partial.file {
            tracing::debug!(file, "an upload that is a file already is asked for more");
            return self.check_offset(&partial, offset).map(|()| partial);
        }
        let writer = super::fresh_id();
        if !self.claim(db, &partial, &writer, CLAIM).await? {
            let message = "another request goes on with this upload just now";
            return Err(versioned(ApiError::new(
                StatusCode::LOCKED,
                "upload_locked",
                message,
            )));
        }
        // What another request did before this one claimed it counts too.
        let mut partial = self.reread(db, &partial).await?;
        let went = self.take(db, &mut partial, &writer, offset, body, checksum).await;
        drop(place);
        let ended = match went {
            Ok(()) if partial.file.is_none() && partial.received == partial.length => {
                self.complete(db, &mut partial, &writer).await
            }
            went => went,
        };
        self.release(db, &partial, &writer).await;
        ended.map(|()| partial)
    }

    fn check_offset(&self, partial: &Partial, offset: u64) -> Result<(), ApiError> {
        if offset == partial.received {
            return Ok(());
        }
        let message = "Upload-Offset is not where the upload stands; ask with HEAD";
        Err(versioned(ApiError::new(
            StatusCode::CONFLICT,
            "offset_mismatch",
            message,
        )))
    }

    async fn take(
        &self,
        db: &Db,
        partial: &mut Partial,
        writer: &str,
        offset: u64,
        body: Body,
        mut checksum: Option<Checksum>,
    ) -> Result<(), ApiError> {
        self.check_offset(partial, offset)?;
        let mut source = Source::new(body, self.settings.silence, LONGEST);
        // Bytes with a checksum count together or not at all.
        let mut unproven = Vec::new();
        let (mut cutter, mut at) = (Cutter::default(), partial.received);
        let came = loop {
            let mut next = match source.next().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let room = partial.length - at - cutter.0.len() as u64;
            if next.len() as u64 > room {
                let (status, code) = (StatusCode::PAYLOAD_TOO_LARGE, "upload_too_long");
                self.drop_pieces(&unproven).await;
                return Err(versioned(ApiError::new(
                    status,
                    code,
                    "these are more bytes than were announced",
                )));
            }
            if let Some(checksum) = &mut checksum {
                checksum.context.update(&next);
            }
            while let Some(piece) = cutter.cut(&mut next, room) {
                let piece = self.put_piece(at, piece).await?;
                at += piece.size;
                if checksum.is_some() {
                    unproven.push(piece);
                } else {
                    self.count(db, partial, writer, &[piece]).await?;
                }
            }
        };
        if !cutter.0.is_empty() {
            unproven.push(self.put_piece(at, cutter.0.freeze()).await?);
        }
        let proven = checksum.is_none_or(|sum| came.is_ok() && sum.context.finish().as_ref() == sum.expected);
        if !proven {
            self.drop_pieces(&unproven).await;
            came.map_err(cut)?;
            let status = StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST);
            return Err(versioned(ApiError::new(
                status,
                "checksum_mismatch",
                "the bytes have another checksum",
            )));
        }
        self.count(db, partial, writer, &unproven).await?;
        came.map_err(|error: SourceError| cut(error))
    }

    async fn put_piece(&self, start: u64, bytes: Bytes) -> Result<Piece, ApiError> {
        let piece = Piece {
            start,
            key: Store::fresh_key(),
            size: bytes.len() as u64,
        };
        self.store.put(&piece.key, bytes).await.map_err(|error| {
            tracing::error!(%error, "the store of files failed");
            ApiError::unavailable("store_away", "the files cannot be written just now", 5)
        })?;
        Ok(piece)
    }

    pub(super) async fn drop_pieces(&self, pieces: &[Piece]) {
        for piece in pieces {
            if let Err(error) = self.store.remove(&piece.key).await {
                tracing::warn!(%error, "a piece of an upload is not removed");
            }
        }
    }

    /// Counts pieces that are in the store.
    async fn count(
        &self,
        db: &Db,
        partial: &mut Partial,
        writer: &str,
        pieces: &[Piece],
    ) -> Result<(), ApiError> {
        let size: u64 = pieces.iter().map(|piece| piece.size).sum();
        if size == 0 {
            return Ok(());
        }
        let counted = async {
            let mut work = db.begin().await?;
            for piece in pieces {
                let mut sql =
                    Sql::new("INSERT INTO file_pieces (upload_id, object_key, start, size) VALUES (");
                sql.bind_all([&*partial.id, &*piece.key]).push(", ");
                sql.bind_all([signed(piece.start), signed(piece.size)]).push(")");
                work.execute(sql.query()).await?;
            }
            let end = self.next_end();
            let mut sql = Sql::new("UPDATE file_uploads SET received = received + ");
            sql.bind(signed(size)).push(", expires_at = ").bind(end);
            sql.push(", writing_until = ").bind(until(CLAIM));
            sql.push(" WHERE tenant = ")
                .bind(&*partial.tenant)
                .push(" AND id = ")
                .bind(&*partial.id);
            sql.push(" AND writer = ").bind(writer);
            // Given up, or taken over by another request: what came here is not its.
            if work.execute(sql.query()).await? == 0 {
                return Err(DbError::Conflict);
            }
            work.commit().await?;
            Ok(end)
        };
        match counted.await {
            Ok(end) => {
                partial.received += size;
                partial.expires_at = end;
                Ok(())
            }
            Err(error) => {
                // A commit that went unheard may have counted them: then they must stay.
                if matches!(error, DbError::Conflict | DbError::Taken) {
                    self.drop_pieces(pieces).await;
                }
                Err(error.into())
            }
        }
    }

    /// Removes an upload and what came of it; the file that it became stays.
    pub(super) async fn give_up(&self, partial: &Partial) -> Result<(), ApiError> {
        let db = self.api.db()?;
        let found = pieces(db, &partial.id).await?;
        let mut work = db.begin().await?;
        let mut sql = Sql::new("DELETE FROM file_uploads WHERE tenant = ");
        sql.bind(&*partial.tenant).push(" AND id = ").bind(&*partial.id);
        if work.execute(sql.query()).await? == 0 {
            return Ok(());
        }
        let mut sql = Sql::new("DELETE FROM file_pieces WHERE upload_id = ");
        sql.bind(&*partial.id);
        work.execute(sql.query()).await?;
        if partial.file.is_none() {
            files::charge(&mut work, &partial.tenant, -signed(partial.length), 0).await?;
        }
        work.commit().await?;
        self.drop_pieces(&found).await;
        Ok(())
    }

    /// Removes uploads that nobody went on with.
    pub(super) async fn sweep_partial(&self, db: &Db) {
        let mut sql = Sql::new("SELECT ");
        sql.push(COLUMNS)
            .push(" FROM file_uploads WHERE writing_until < ")
            .bind(now());
        sql.push(" AND expires_at < ")
            .bind(now())
            .push(" ORDER BY expires_at LIMIT ")
            .bind(BATCH);
        let dead = match db.fetch_all(sql.query()).await {
            Ok(dead) => dead,
            Err(error) => {
                tracing::debug!(%error, "uploads that stopped are looked for later");
                return;
            }
        };
        for partial in dead.iter().map(Partial::of) {
            if let Err(error) = self.give_up(&partial).await {
                tracing::debug!(code = error.code, "an upload that stopped is removed later");
            }
        }
    }

    /// Makes a request the one that appends. Another one's claim ends by itself.
    pub(super) async fn claim(
        &self,
        db: &Db,
        partial: &Partial,
        writer: &str,
        life: Duration,
    ) -> Result<bool, DbError> {
        let mut sql = Sql::new("UPDATE file_uploads SET writer = ");
        sql.bind(writer).push(", writing_until = ").bind(until(life));
        sql.push(" WHERE tenant = ")
            .bind(&*partial.tenant)
            .push(" AND id = ")
            .bind(&*partial.id);
        sql.push(" AND (writing_until < ")
            .bind(now())
            .push(" OR writer = ")
            .bind(writer)
            .push(")");
        Ok(db.execute(sql.query()).await? > 0)
    }

    async fn release(&self, db: &Db, partial: &Partial, writer: &str) {
        let mut sql = Sql::new("UPDATE file_uploads SET writer = '', writing_until = 0 WHERE tenant = ");
        sql.bind(&*partial.tenant).push(" AND id = ").bind(&*partial.id);
        sql.push(" AND writer = ").bind(writer);
        if let Err(error) = db.execute(sql.query()).await {
            tracing::debug!(%error, "an upload is free again when its claim ends");
        }
    }

    async fn reread(&self, db: &Db, partial: &Partial) -> Result<Partial, ApiError> {
        let mut sql = Sql::new("SELECT ");
        sql.push(COLUMNS)
            .push(" FROM file_uploads WHERE tenant = ")
            .bind(&*partial.tenant);
        sql.push(" AND id = ").bind(&*partial.id);
        let row = db.fetch_optional(sql.query()).await?;
        row.as_ref()
            .map(Partial::of)
            .ok_or_else(|| ApiError::not_found("there is no such upload"))
    }
}

/// The pieces of an upload, in their order. An upload has at most as many as fit its length.
pub(super) async fn pieces(db: &Db, upload: &str) -> Result<Vec<Piece>, DbError> {
    let mut sql = Sql::new("SELECT start, object_key, size FROM file_pieces WHERE upload_id = ");
    sql.bind(upload).push(" ORDER BY start");
    let rows = db.fetch_all(sql.query()).await?;
    let number = |row: &AnyRow, at: usize| u64::try_from(row.get::<i64, _>(at)).unwrap_or_default();
    let piece = |row: &AnyRow| Piece {
        start: number(row, 0),
        key: row.get(1),
        size: number(row, 2),
    };
    Ok(rows.iter().map(piece).collect())
}

fn until(life: Duration) -> i64 {
    now() + i64::try_from(life.as_millis()).unwrap_or_default()
}
