//! The OpenAPI document of a listener: what stands around the routes that it is collected from.
//!
//! Owns: its title, the parts of the API, how callers prove who they are, and the refusals that every route may answer.
//! Does not: describe a route (its handler's `#[utoipa::path]` does) or serve the document (`docs` does).
//! Called by: the routers of both listeners.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::error::ErrorBody;

/// What players and services are served.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Usher",
        description = "A WebSocket streaming-session gateway: the connection is the lease on one of the account's concurrent \
                       streams. Times are RFC 3339 in UTC; lengths of time are integers with their unit in the name. \
                       A member of an answer that you do not know is to be ignored."
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "sessions", description = "Starting to play, keeping the slot and giving it back."),
        (name = "tickets", description = "What a CDN, a licence server or a proxy asks before it serves."),
        (name = "auth", description = "Signing in and out."),
        (name = "users", description = "People and their accounts."),
        (name = "content", description = "The catalogue, and playing from it."),
        (name = "media", description = "Files and their bytes."),
        (name = "ledger", description = "What was played, and statements about it."),
        (name = "messages", description = "Messages between accounts."),
    )
)]
pub(super) struct Players;

/// What operators are served, on a listener of their own.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Usher for operators",
        description = "The listener of operators (`listen.admin`). Every call under `/v1/admin` is in the audit trail, a \
                       look that is repeated once in ten minutes."
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "accounts", description = "What operators do with accounts, on whatever node they play."),
        (name = "node", description = "This node: its health, its log, its metrics."),
        (name = "messages", description = "Messages that viewers report."),
        (name = "ledger", description = "What was played, and statements about it, as on the players' listener."),
        (name = "media", description = "The use of files, as on the players' listener."),
    )
)]
pub(super) struct Operators;

/// What a route has, by which it may refuse.
struct Traits {
    has_input: bool,
    has_body: bool,
    has_path_parameter: bool,
    is_secured: bool,
}

/// A refusal that many routes may answer.
struct Refusal {
    status: &'static str,
    name: &'static str,
    description: &'static str,
    /// A header that comes with it, and what it says.
    header: Option<(&'static str, &'static str)>,
    applies: fn(&Traits) -> bool,
}

const RETRY_AFTER: Option<(&str, &str)> = Some(("Retry-After", "When to come again, in seconds."));

/// Every one of them, by its status.
const REFUSALS: [Refusal; 10] = [
    Refusal {
        status: "400",
        name: "BadRequest",
        description: "`bad_request`: what `field` names cannot be used.",
        header: None,
        applies: |route| route.has_input,
    },
    Refusal {
        status: "401",
        name: "Unauthorized",
        description: "`unauthorized`: nothing, or nothing valid, proves who calls.",
        header: Some(("WWW-Authenticate", "How to prove it.")),
        applies: |route| route.is_secured,
    },
    Refusal {
        status: "403",
        name: "Forbidden",
        description: "`scope_forbidden`, `tenant_forbidden`, `content_forbidden`, `device_forbidden`: the token does not \
                      allow it. `origin_forbidden`: a page of another site asks (`http.origins`). `host_forbidden`: the \
                      operators' listener is not called by this name (`listen.admin_hosts`).",
        header: None,
        applies: |_| true,
    },
    Refusal {
        status: "404",
        name: "NotFound",
        description: "`not_found`: there is no such thing, or it is another tenant's.",
        header: None,
        applies: |route| route.has_path_parameter,
    },
    Refusal {
        status: "408",
        name: "Timeout",
        description: "`timeout`: the body did not come in time.",
        header: None,
        applies: |route| route.has_body,
    },
    Refusal {
        status: "413",
        name: "BodyTooLarge",
        description: "`body_too_large`.",
        header: None,
        applies: |route| route.has_body,
    },
    Refusal {
        status: "415",
        name: "UnsupportedMediaType",
        description: "`unsupported_media_type`: the body's `Content-Type` is another one.",
        header: None,
        applies: |route| route.has_body,
    },
    Refusal {
        status: "429",
        name: "RateLimited",
        description: "`rate_limited`: too many requests of this address, token or account.",
        header: RETRY_AFTER,
        applies: |_| true,
    },
    Refusal {
        status: "431",
        name: "HeadersTooLarge",
        description: "`headers_too_large`: more than 64 headers, or more than 16 KiB of them.",
        header: None,
        applies: |_| true,
    },
    Refusal {
        status: "503",
        name: "Unavailable",
        description: "`unavailable`, `draining`, `database_away`: not just now. `needs_database`: this needs a database \
                      that the nodes share.",
        header: RETRY_AFTER,
        applies: |_| true,
    },
];

/// The members of a path that are operations.
const METHODS: [&str; 6] = ["get", "put", "post", "delete", "patch", "head"];

/// The text of the document of these routes.
///
/// A route's own words are kept: it gets the refusals that it does not tell of itself, and its operation's id, which is
/// its function's name, is put after its tag, so that it is unique. The items of a list that takes `fields` may lack any
/// member but their first, by which they are known.
pub(super) fn text(document: &utoipa::openapi::OpenApi) -> Bytes {
    let mut document = json!(document);
    let schemas = document["components"]["schemas"].clone();
    let mut used = Vec::new();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in operations(item) {
            complete(path, operation);
            loosen(operation, &schemas);
            used.extend(operation["tags"][0].as_str().map(str::to_owned));
        }
    }
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.retain(|tag| used.iter().any(|used| tag["name"] == **used));
    }
    let components = &mut document["components"];
    components["responses"] = REFUSALS.iter().map(response).collect::<Map<_, _>>().into();
    components["securitySchemes"] = json!({
        "bearer": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "An access token. A route says which scope it takes.",
        },
        "basic": {"type": "http", "scheme": "basic", "description": "An e-mail address or user name, and the password."},
        "ticket": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A playback ticket, as a socket or `POST /v1/sessions` gave it.",
        },
    });
    Bytes::from(document.to_string())
}

fn operations(item: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    let members = item.as_object_mut().into_iter().flatten();
    members.filter(|(name, _)| METHODS.contains(&name.as_str()))
}

fn complete(path: &str, operation: &mut Value) {
    let route = Traits {
        has_input: !operation["parameters"].is_null() || !operation["requestBody"].is_null(),
        has_body: !operation["requestBody"].is_null(),
        has_path_parameter: path.contains('{'),
        is_secured: !operation["security"].is_null(),
    };
    let id = [&operation["tags"][0], &operation["operationId"]].map(|part| part.as_str().unwrap_or_default());
    operation["operationId"] = id.join("_").into();
    for refusal in REFUSALS.iter().filter(|refusal| (refusal.applies)(&route)) {
        let answer = &mut operation["responses"][refusal.status];
        if answer.is_null() {
            *answer = json!({"$ref": format!("#/components/responses/{}", refusal.name)});
        }
    }
}

/// Says that items lack what `fields` does not ask for.
fn loosen(operation: &mut Value, schemas: &Value) {
    let parameters = operation["parameters"].as_array();
    if !parameters.is_some_and(|all| all.iter().any(|one| one["name"] == "fields")) {
        return;
    }
    let answers = operation["responses"].as_object_mut().into_iter().flatten();
    for (_, answer) in answers.filter(|(status, _)| status.starts_with('2')) {
        let Some(schema) = answer.pointer_mut("/content/application~1json/schema") else {
            continue;
        };
        *schema = resolved(schema, schemas);
        let Some(item) = schema.pointer_mut("/properties/items/items") else {
            continue;
        };
        *item = resolved(item, schemas);
        known_by_first(item);
        for part in item
            .get_mut("allOf")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            *part = resolved(part, schemas);
            known_by_first(part);
        }
    }
}

/// Nothing is required but the first member.
fn known_by_first(item: &mut Value) {
    if let Some(required) = item.get_mut("required").and_then(Value::as_array_mut) {
        required.truncate(1);
    }
}

/// What a reference refers to; what is none stays.
fn resolved(schema: &Value, schemas: &Value) -> Value {
    let name = schema["$ref"]
        .as_str()
        .and_then(|reference| reference.rsplit('/').next());
    name.map_or(schema, |name| &schemas[name]).clone()
}

fn response(refusal: &Refusal) -> (String, Value) {
    let mut response = json!({
        "description": refusal.description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    });
    if let Some((name, description)) = refusal.header {
        response["headers"] = json!({name: {"description": description, "schema": {"type": "string"}}});
    }
    (refusal.name.to_owned(), response)
}
