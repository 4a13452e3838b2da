//! A file as it is known: its row, what may be said of it, and how it is shown.
//!
//! Owns: the fields and their bounds. Does not: hold bytes or ask the database. Called by: every route of this room.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::protocol::MAX_ID_BYTES;

use super::kind::canonical;

/// Characters of a title.
const TITLE: usize = 200;
/// Characters of a description.
const DESCRIPTION: usize = 1000;
/// Characters of a category, a language, a provider or a role.
const WORD: usize = 64;
/// Roles of one file.
const ROLES: usize = 32;

/// The columns of a [`File`], in their order.
pub(super) const COLUMNS: &str = "id, tenant, object_key, owner, state, type, size, sha256, title, description, category, \
    language, provider, content, roles, created_at, changed_at";

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = FileState)]
pub(super) enum State {
    /// Its bytes are still coming: nobody sees it.
    Receiving,
    /// The scanner has not judged it yet: nobody gets its bytes.
    Scanning,
    /// It may be fetched.
    Ready,
    /// The scanner found it infected: nobody gets its bytes.
    Quarantined,
}

/// A file's row.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its id, random.
    pub(super) id: String,
    /// Whose tenant's.
    pub(super) tenant: String,
    /// Where its bytes are.
    pub(super) key: String,
    /// The account that brought it.
    pub(super) owner: String,
    /// What became of it.
    pub(super) state: State,
    /// Its media type.
    pub(super) kind: String,
    /// Bytes.
    pub(super) size: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// What is said of it.
    pub(super) about: About,
    /// When it came, Unix milliseconds.
    pub(super) created_at: i64,
    /// When what is said of it, or its state, changed last.
    pub(super) changed_at: i64,
}

/// What is said of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// At most 200 characters.
    pub(super) title: String,
    /// At most 1,000 characters.
    pub(super) description: String,
    /// What it is about.
    pub(super) category: Option<String>,
    /// Its language.
    pub(super) language: Option<String>,
    /// Whose it is, within the tenant.
    pub(super) provider: Option<String>,
    /// The content whose lease opens it.
    pub(super) content: Option<String>,
    /// Whoever has one of these may have it; none: everybody.
    pub(super) roles: Vec<String>,
}

/// A file as it is shown.
#[derive(Serialize, ToSchema)]
#[schema(as = File)]
pub(super) struct Shown<'a> {
    /// Its id, which is also a content that a lease may name to open it.
    id: &'a str,
    #[schema(max_length = 200)]
    title: &'a str,
    #[schema(max_length = 1000)]
    description: &'a str,
    #[schema(required)]
    category: Option<&'a str>,
    #[schema(required)]
    language: Option<&'a str>,
    /// Whose it is, within the tenant.
    #[schema(required)]
    provider: Option<&'a str>,
    /// The content whose lease opens it.
    #[schema(required)]
    content: Option<&'a str>,
    /// Whoever has one of these may have it; none: everybody.
    roles: &'a [String],
    /// Its media type.
    r#type: &'a str,
    /// Bytes.
    size: u64,
    /// SHA-256 in hexadecimal digits.
    sha256: &'a str,
    state: State,
    /// The account that brought it.
    owner: &'a str,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    changed_at: String,
}

impl State {
    /// As it is stored.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Scanning => "scanning",
            Self::Ready => "ready",
            Self::Quarantined => "quarantined",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "ready" => Self::Ready,
            "scanning" => Self::Scanning,
            "quarantined" => Self::Quarantined,
            _ => Self::Receiving,
        }
    }
}

impl File {
    /// Reads [`COLUMNS`].
    #[must_use]
    pub(super) fn of(row: &AnyRow) -> Self {
        let roles: String = row.get("roles");
        Self {
            id: row.get("id"),
            tenant: row.get("tenant"),
            key: row.get("object_key"),
            owner: row.get("owner"),
            state: State::of(&row.get::<String, _>("state")),
            kind: row.get("type"),
            size: u64::try_from(row.get::<i64, _>("size")).unwrap_or_default(),
            sha256: row.get("sha256"),
            about: About {
                title: row.get("title"),
                description: row.get("description"),
                category: row.get("category"),
                language: row.get("language"),
                provider: row.get("provider"),
                content: row.get("content"),
                roles: serde_json::from_str(&roles).unwrap_or_default(),
            },
            created_at: row.get("created_at"),
            changed_at: row.get("changed_at"),
        }
    }

    /// As it is shown.
    #[must_use]
    pub(super) fn shown(&self) -> Shown<'_> {
        let about = &self.about;
        Shown {
            id: &self.id,
            title: &about.title,
            description: &about.description,
            category: about.category.as_deref(),
            language: about.language.as_deref(),
            provider: about.provider.as_deref(),
            content: about.content.as_deref(),
            roles: &about.roles,
            r#type: &self.kind,
            size: self.size,
            sha256: &self.sha256,
            state: self.state,
            owner: &self.owner,
            created_at: time(self.created_at),
            changed_at: time(self.changed_at),
        }
    }

    /// The entity tag of its bytes, which never change.
    #[must_use]
    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.sha256)
    }
}

impl About {
    /// Sets a field by its name; another name is ignored. An empty text is nothing, but as a title.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn set(&mut self, field: &str, value: &str) -> Result<(), ApiError> {
        match field {
            "title" => self.title = line("title", value, TITLE)?,
            "description" => self.description = prose("description", value, DESCRIPTION)?,
            "category" => self.category = word("category", value)?,
            "language" => self.language = word("language", value)?,
            "provider" => self.provider = word("provider", value)?,
            "content" => {
                let content = line("content", value, MAX_ID_BYTES)?;
                if content.len() > MAX_ID_BYTES {
                    return Err(ApiError::bad_request("content", "content has at most 256 bytes"));
                }
                self.content = Some(content).filter(|content| !content.is_empty());
            }
            "roles" | "roles[]" | "role" => {
                let many = value.split(',').map(str::trim).filter(|role| !role.is_empty());
                for role in many {
                    self.add_role(role)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_role(&mut self, role: &str) -> Result<(), ApiError> {
        let Some(role) = word("roles", role)? else {
            return Ok(());
        };
        if !self.roles.contains(&role) {
            if self.roles.len() >= ROLES {
                return Err(ApiError::bad_request("roles", format!("at most {ROLES} roles")));
            }
            self.roles.push(role);
        }
        Ok(())
    }

    /// Sets the fields of a JSON object; what is left out stays, `null` takes it away.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn change(&mut self, fields: &Map<String, Value>) -> Result<(), ApiError> {
        for field in [
            "title",
            "description",
            "category",
            "language",
            "provider",
            "content",
        ] {
            match fields.get(field) {
                None => {}
                Some(Value::Null) => self.set(field, "")?,
                Some(Value::String(text)) => self.set(field, text)?,
                Some(_) => return Err(ApiError::bad_request(field, format!("{field} must be a text"))),
            }
        }
        match fields.get("roles") {
            None => {}
            Some(Value::Null) => self.roles.clear(),
            Some(Value::Array(roles)) => {
                self.roles.clear();
                for role in roles {
                    let role = role.as_str();
                    let role =
                        role.ok_or_else(|| ApiError::bad_request("roles", "roles must be a list of texts"))?;
                    self.add_role(role)?;
                }
            }
            Some(_) => return Err(ApiError::bad_request("roles", "roles must be a list of texts")),
        }
        Ok(())
    }

    /// What a search looks through.
    #[must_use]
    pub(super) fn search_key(&self) -> String {
        format!("{}\n{}", self.title, self.description).to_lowercase()
    }

    /// The roles as they are stored.
    #[must_use]
    pub(super) fn roles_json(&self) -> String {
        Value::from(self.roles.clone()).to_string()
    }

    /// Whether somebody with these roles may have the file.
    #[must_use]
    pub(super) fn is_for(&self, roles: &[String]) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|role| roles.contains(role))
    }
}

/// A declared media type, if it is taken here.
///
/// # Errors
/// 415.
pub(super) fn accepted(types: &[String], declared: &str) -> Result<String, ApiError> {
    let kind = canonical(declared);
    if types.contains(&kind) {
        return Ok(kind);
    }
    let message = format!(
        "files of this type are not taken; those are: {}",
        types.join(", ")
    );
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    ))
}

fn line(field: &'static str, value: &str, most: usize) -> Result<String, ApiError> {
    text(field, value.trim(), most, char::is_control)
}

fn prose(field: &'static str, value: &str, most: usize) -> Result<String, ApiError> {
    let barred = |one: char| one.is_control() && !matches!(one, '\n' | '\r' | '\t');
    text(field, value, most, barred)
}

fn word(field: &'static str, value: &str) -> Result<Option<String>, ApiError> {
    let word = line(field, value, WORD)?;
    if word.contains(',') {
        return Err(ApiError::bad_request(
            field,
            format!("{field} must have no comma"),
        ));
    }
    Ok(Some(word).filter(|word| !word.is_empty()))
}

fn text(
    field: &'static str,
    value: &str,
    most: usize,
    barred: impl Fn(char) -> bool,
) -> Result<String, ApiError> {
    if value.chars().count() > most {
        let message = format!("{field} has more than {most} characters");
        return Err(ApiError::bad_request(field, message));
    }
    if value.contains(barred) {
        return Err(ApiError::bad_request(
            field,
            format!("{field} has control characters"),
        ));
    }
    Ok(value.to_owned())
}

/// Unix milliseconds as RFC 3339.
#[must_use]
pub(super) fn time(unix_millis: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(unix_millis).unwrap_or_default());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}

/// Now in Unix milliseconds.
#[must_use]
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
