//! The last byte of a resumable upload: its pieces become a file.
//!
//! Owns: putting them together through the same `intake` as every upload, and that this happens once. Does not: take
//! pieces (`partial` does). Called by: `partial`.

use std::time::Duration;

use futures_util::TryStreamExt;

use crate::api::error::ApiError;
use crate::db::{Db, DbError, Sql};

use super::Media;
use super::file::File;
use super::files::{self, NotWritten};
use super::intake::{Intake, Taken, Unfit};
use super::partial::{Partial, pieces};
use super::refusal::{Refused, full};
use super::store::StoreError;
use super::tus::{read_metadata, versioned};
use super::viewer::Person;

/// Putting the pieces together takes longer than any of them.
const LONG_CLAIM: Duration = Duration::from_secs(1800);

impl Media {
    /// Puts the pieces together. What they are not fit for is refused, and the upload is gone.
    pub(super) async fn complete(
        &self,
        db: &Db,
        partial: &mut Partial,
        writer: &str,
    ) -> Result<(), ApiError> {
        let (kind, about) = read_metadata(&self.settings.types, &partial.metadata)?;
        if !self.claim(db, partial, writer, LONG_CLAIM).await? {
            return Err(DbError::Conflict.into());
        }
        let person = Person::named(&partial.tenant, &partial.owner);
        let mut file = File {
            key: partial.key.clone(),
            about,
            ..self.fresh(&person, kind)
        };
        let announced = files::announce(db, &file).await;
        if matches!(announced, Err(DbError::Taken)) {
            // A node died in the middle of this: its row has the key.
            self.forget_key(db, partial).await?;
            files::announce(db, &file).await?;
        } else {
            announced?;
        }
        let done = match self.join(db, partial, &file).await {
            Ok(taken) => self.publish_partial(db, partial, &mut file, &taken).await,
            Err(unfit) => Err(self.refusal(&unfit)),
        };
        let outcome = match done {
            Ok(()) => "stored",
            Err(Refused::Api(_)) => "refused",
            Err(Refused::Failed(_)) => "failed",
        };
        self.api.metrics.media_uploads_total.inc(outcome);
        match done {
            Ok(()) => {
                partial.file = Some(file.id);
                self.scanner.notify_one();
                Ok(())
            }
            Err(Refused::Failed(error)) => {
                self.forget(db, &file).await;
                Err(error)
            }
            Err(Refused::Api(error)) => {
                self.forget(db, &file).await;
                self.give_up(partial).await?;
                Err(versioned(error))
            }
        }
    }

    async fn forget_key(&self, db: &Db, partial: &Partial) -> Result<(), DbError> {
        let mut sql = Sql::new("DELETE FROM files WHERE state = 'receiving' AND tenant = ");
        sql.bind(&*partial.tenant)
            .push(" AND object_key = ")
            .bind(&*partial.key);
        db.execute(sql.query()).await?;
        Ok(())
    }

    async fn join(&self, db: &Db, partial: &Partial, file: &File) -> Result<Taken, Unfit> {
        let failed = |error: DbError| Unfit::Store(StoreError::Failed(error.to_string()));
        let writer = self.store.write(&file.key).await?;
        let mut intake = Intake::new(writer, &file.kind, self.settings.max_bytes);
        for piece in pieces(db, &partial.id).await.map_err(failed)? {
            let mut chunks = self.store.read(&piece.key, 0..piece.size).await?;
            while let Some(chunk) = chunks.try_next().await? {
                intake.push(&chunk).await?;
            }
        }
        intake.finish().await
    }

    /// The upload is a file, in one step.
    async fn publish_partial(
        &self,
        db: &Db,
        partial: &Partial,
        file: &mut File,
        taken: &Taken,
    ) -> Result<(), Refused> {
        file.size = taken.size;
        file.sha256.clone_from(&taken.sha256);
        let pieces = pieces(db, &partial.id).await.map_err(ApiError::from)?;
        let written = async {
            let mut work = db.begin().await?;
            // Its bytes were counted when it was announced.
            files::publish_in(&mut work, file, taken, None).await?;
            let mut sql = Sql::new("UPDATE file_uploads SET file_id = ");
            sql.bind(&*file.id)
                .push(" WHERE file_id IS NULL AND tenant = ")
                .bind(&*partial.tenant);
            sql.push(" AND id = ").bind(&*partial.id);
            if work.execute(sql.query()).await? == 0 {
                return Err(DbError::Conflict.into());
            }
            let mut sql = Sql::new("DELETE FROM file_pieces WHERE upload_id = ");
            sql.bind(&*partial.id);
            work.execute(sql.query()).await?;
            work.commit().await?;
            Ok::<(), NotWritten>(())
        };
        written.await.map_err(|error| match error {
            NotWritten::Full => Refused::Api(full()),
            NotWritten::Db(error) => Refused::Failed(error.into()),
        })?;
        self.drop_pieces(&pieces).await;
        Ok(())
    }
}
