//! `POST /v1/files`: a file and what is said of it, as a form.
//!
//! Owns: the fields of the form, and that a refused upload leaves nothing behind. Does not: judge bytes (`intake` does).
//! Called by: the router.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::api::error::{ApiError, ErrorBody};
use crate::api::observe::Context;
use crate::db::Db;

use super::Media;
use super::file::{About, File, Shown, State as FileState, accepted, now};
use super::files::{self, NotWritten};
use super::form::{Form, FormError};
use super::intake::{Intake, Taken, Unfit};
use super::quota::Place;
use super::refusal::{Refused, field_error, full};
use super::source::Source;
use super::store::Store;
use super::viewer::Person;

/// Bytes of a field that is not the file.
const FIELD_BYTES: usize = 8 * 1024;

/// What a form may have beside its file, in bytes.
const AROUND: u64 = 1024 * 1024;

/// The most time of one upload; what was announced and not finished by then may be swept.
pub(super) const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// For how long a refused upload is still read, so that its sender gets to read the answer.
const LINGER: Duration = Duration::from_secs(2);

/// The form.
#[derive(utoipa::ToSchema)]
#[schema(as = FileForm)]
#[expect(dead_code, reason = "only described: `Form` reads it, piece by piece")]
pub(super) struct Upload {
    /// The bytes, with their media type.
    #[schema(value_type = String, format = Binary)]
    file: String,
    /// Left out: the file's name.
    #[schema(max_length = 200)]
    title: Option<String>,
    #[schema(max_length = 1000)]
    description: Option<String>,
    #[schema(max_length = 64)]
    category: Option<String>,
    #[schema(max_length = 64)]
    language: Option<String>,
    #[schema(max_length = 64)]
    provider: Option<String>,
    /// The content whose lease opens it.
    #[schema(max_length = 256)]
    content: Option<String>,
    /// One field for each, or one field with commas between.
    #[schema(max_items = 32)]
    roles: Option<Vec<String>>,
}

/// Uploads a file.
///
/// It is seen when it is whole, and not before. Needs the scope editor, admin or operator, unless `media.viewers_upload`.
#[utoipa::path(
    post,
    path = "/v1/files",
    tag = "media",
    request_body(content = Upload, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The file", body = Shown<'_>, headers(("Location" = String, description = "Its path"))),
        (status = 413, description = "`file_too_large`, `quota_exceeded`, `body_too_large`", body = ErrorBody),
        (
            status = 415,
            description = "`type_mismatch`: the bytes are not of the declared type. `unsupported_media_type`: it is not taken here",
            body = ErrorBody
        ),
    ),
    security(("bearer" = []))
)]
pub(super) async fn upload(
    State(media): State<Arc<Media>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let person = media.uploader(&context, &parts).await?;
    let Some(boundary) = Form::boundary(&parts.headers) else {
        let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
        return Err(ApiError::new(
            status,
            code,
            "the body must be multipart/form-data",
        ));
    };
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    media
        .check_room(&person, length.map(|length| length.saturating_sub(AROUND)))
        .await?;
    let place = media.quota.begin_upload(&person.tenant)?;
    let source = Source::new(body, media.settings.silence, LONGEST);
    let form = Form::new(source, &boundary);
    // A task of its own: whoever goes away in the middle leaves nothing behind.
    let taking = Arc::clone(&media).take_form(person, form, place);
    let taken = media.tasks.spawn(taking).await;
    let file = taken.unwrap_or_else(|_| Err(failed("the upload was interrupted")))?;
    let location = format!("/v1/files/{}", file.id);
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(file.shown()),
    )
        .into_response())
}

impl Media {
    /// Whether so many bytes fit, before any of them is read.
    pub(super) async fn check_room(&self, person: &Person, length: Option<u64>) -> Result<(), ApiError> {
        if length.is_some_and(|length| length > self.settings.max_bytes) {
            return Err(self.too_large());
        }
        let (quota, db) = (self.quota.bytes(), self.api.db()?);
        if quota > 0
            && files::used(db, &person.tenant)
                .await?
                .saturating_add(length.unwrap_or(0))
                >= quota
        {
            return Err(full());
        }
        Ok(())
    }

    pub(super) fn too_large(&self) -> ApiError {
        let message = format!("a file has at most {} bytes", self.settings.max_bytes);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", message)
    }

    /// A file of a person that is about to come, with nothing said of it.
    pub(super) fn fresh(&self, person: &Person, kind: String) -> File {
        let at = now();
        File {
            id: super::fresh_id(),
            tenant: person.tenant.to_string(),
            key: Store::fresh_key(),
            owner: person.account.to_string(),
            state: if self.settings.scan.clamd.is_empty() {
                FileState::Ready
            } else {
                FileState::Scanning
            },
            kind,
            size: 0,
            sha256: String::new(),
            about: About::default(),
            created_at: at,
            changed_at: at,
        }
    }

    async fn take_form(
        self: Arc<Self>,
        person: Person,
        mut form: Form,
        place: Place,
    ) -> Result<File, ApiError> {
        let taken = self.read_form(&person, &mut form).await;
        drop(place);
        let outcome = match &taken {
            Ok(_) => "stored",
            Err(Refused::Api(_)) => "refused",
            Err(Refused::Failed(_)) => "failed",
        };
        self.api.metrics.media_uploads_total.inc(outcome);
        match taken {
            Ok(file) => {
                self.scanner.notify_one();
                Ok(file)
            }
            Err(Refused::Api(error) | Refused::Failed(error)) => {
                form.linger(LINGER).await;
                Err(error)
            }
        }
    }

    async fn read_form(&self, person: &Person, form: &mut Form) -> Result<File, Refused> {
        let db = self.api.db()?;
        let mut about = About::default();
        let mut taken: Option<(File, Taken)> = None;
        let read = self.read_parts(person, form, &mut about, &mut taken).await;
        let Some((mut file, bytes)) = taken else {
            read?;
            return Err(ApiError::bad_request("file", "there is no part `file` with a file").into());
        };
        file.about = about;
        let written = match read {
            Ok(()) => self.publish(db, &mut file, &bytes).await,
            Err(refused) => Err(refused),
        };
        match written {
            Ok(()) => Ok(file),
            Err(refused) => {
                self.forget(db, &file).await;
                Err(refused)
            }
        }
    }

    async fn read_parts(
        &self,
        person: &Person,
        form: &mut Form,
        about: &mut About,
        taken: &mut Option<(File, Taken)>,
    ) -> Result<(), Refused> {
        while let Some(part) = form.next().await? {
            if part.name != "file" {
                let value = form
                    .text(FIELD_BYTES)
                    .await
                    .map_err(|error| field_error(error, &part.name))?;
                about.set(&part.name, &value)?;
                continue;
            }
            if taken.is_some() {
                return Err(ApiError::bad_request("file", "one file at a time").into());
            }
            let kind = accepted(&self.settings.types, &part.kind)?;
            let file = self.fresh(person, kind);
            let bytes = self.store_part(&file, form).await?;
            *taken = Some((file, bytes));
            if about.title.is_empty() {
                about.title = title_of(part.file_name.as_deref().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Takes the bytes of the part under way. What is refused leaves neither a row nor an object.
    async fn store_part(&self, file: &File, form: &mut Form) -> Result<Taken, Refused> {
        let db = self.api.db()?;
        files::announce(db, file).await.map_err(ApiError::from)?;
        let taking = async {
            let writer = self.store.write(&file.key).await.map_err(Unfit::from)?;
            let mut intake = Intake::new(writer, &file.kind, self.settings.max_bytes);
            while let Some(piece) = form.piece().await? {
                intake.push(&piece).await?;
            }
            Ok::<_, Wrong>(intake.finish().await?)
        };
        match taking.await {
            Ok(taken) => Ok(taken),
            Err(wrong) => {
                self.forget(db, file).await;
                Err(match wrong {
                    Wrong::Form(error) => error.into(),
                    Wrong::Unfit(unfit) => self.refusal(&unfit),
                })
            }
        }
    }

    pub(super) async fn publish(&self, db: &Db, file: &mut File, taken: &Taken) -> Result<(), Refused> {
        file.size = taken.size;
        file.sha256.clone_from(&taken.sha256);
        let written = files::publish(db, file, taken, Some(self.quota.bytes())).await;
        written.map_err(|error| match error {
            NotWritten::Full => Refused::Api(full()),
            NotWritten::Db(error) => Refused::Failed(error.into()),
        })
    }

    /// Removes what is left of a file that nobody saw. What cannot be removed now is swept later, by its row.
    pub(super) async fn forget(&self, db: &Db, file: &File) {
        let unseen = File {
            state: FileState::Receiving,
            ..file.clone()
        };
        if let Err(error) = self.store.remove(&file.key).await {
            tracing::warn!(file = file.id, %error, "what is left of a refused file is removed later");
            return;
        }
        if let Err(error) = files::remove(db, &unseen).await {
            tracing::warn!(file = file.id, %error, "the row of a refused file is removed later");
        }
    }

    /// What an uploader is told of bytes that do not become a file.
    pub(super) fn refusal(&self, unfit: &Unfit) -> Refused {
        let text = unfit.to_string();
        match unfit {
            Unfit::TooLarge => Refused::Api(self.too_large()),
            Unfit::TooSmall => Refused::Api(ApiError::bad_request("file", text)),
            Unfit::OtherType => {
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                Refused::Api(ApiError::new(status, "type_mismatch", text))
            }
            Unfit::Store(error) => {
                tracing::error!(%error, "the store of files failed");
                let message = "the files cannot be written just now";
                Refused::Failed(ApiError::unavailable("store_away", message, 5))
            }
        }
    }
}

/// Why the part with the file does not become one.
enum Wrong {
    Form(FormError),
    Unfit(Unfit),
}

impl From<FormError> for Wrong {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

impl From<Unfit> for Wrong {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

fn failed(message: &'static str) -> ApiError {
    ApiError::unavailable("unavailable", message, 1)
}

/// The last part of a file's name: a label, and never a path.
pub(super) fn title_of(file_name: &str) -> String {
    let last = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = last.chars().filter(|one| !one.is_control()).take(200);
    plain.collect::<String>().trim().to_owned()
}
