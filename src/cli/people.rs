//! `usher accounts add|list|reset-password`: people's accounts, straight in the database, whether nodes run or not.

use std::io::Read;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use serde_json::json;

use crate::accounts::people::{self, Filter, Part};
use crate::accounts::person::Person;
use crate::accounts::{resets, tools};
use crate::auth::is_tenant;
use crate::config::{Config, RESET_TOKEN};
use crate::db::{Db, Migrations};
use crate::protocol::id::random;
use crate::telemetry::Metrics;

use super::{Failure, Settings, block_on, table};

/// People read at a time.
const PART: usize = 500;

/// Longest password that is read, in bytes; a longer one is refused for its length.
const MOST_INPUT: u64 = 4096;

#[derive(Args)]
pub(super) struct Add {
    /// E-mail address to sign in with
    #[arg(long)]
    email: String,
    /// Second name to sign in with
    #[arg(long)]
    user_name: Option<String>,
    /// Name that others see [default: what stands before the @]
    #[arg(long)]
    name: Option<String>,
    /// Plan
    #[arg(long)]
    plan: Option<String>,
    /// May do everything inside the tenant (the same as --scope admin)
    #[arg(long)]
    admin: bool,
    /// Scopes beside watch: admin, editor, support, finance, introspect
    #[arg(long, value_delimiter = ',')]
    scope: Vec<String>,
    /// Read the password from standard input; otherwise one is made up and printed
    #[arg(long)]
    password_stdin: bool,
    /// Tenant
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct List {
    /// Only those with this in their e-mail, user name or name
    #[arg(long)]
    q: Option<String>,
    /// Only those of this plan
    #[arg(long)]
    plan: Option<String>,
    /// Tenant
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ResetPassword {
    /// Whose: an e-mail, a user name or an id
    #[arg(long, visible_alias = "email", allow_hyphen_values = true)]
    account: String,
    /// Read the new password from standard input; otherwise a one-time token for a new one is printed
    #[arg(long)]
    password_stdin: bool,
    /// Tenant
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn add(settings: &Settings, asked: Add) -> Result<(), Failure> {
    check_tenant(&asked.tenant)?;
    let typed = if asked.password_stdin {
        Some(read_password()?)
    } else {
        None
    };
    let made = typed.is_none().then(|| URL_SAFE_NO_PAD.encode(random::<16>()));
    let password = typed.or_else(|| made.clone()).unwrap_or_default();
    let admin = asked.admin.then(|| "admin".to_owned());
    let scope: Vec<_> = asked.scope.into_iter().chain(admin).collect();
    let person = with_rows(settings, async |config, db| {
        let wanted = tools::Asked {
            tenant: asked.tenant,
            email: asked.email,
            password,
            user_name: asked.user_name,
            name: asked.name,
            plan: asked.plan,
            scope: scope.join(" "),
        };
        tools::add(db, &config.accounts, wanted)
            .await
            .map_err(Failure::other)
    })?;
    if asked.json {
        let mut item = json!(person.own());
        if let Some(made) = made {
            item["password"] = made.into();
        }
        println!("{item}");
        return Ok(());
    }
    print_people(std::slice::from_ref(&person));
    if let Some(made) = made {
        println!("password: {made}");
    }
    Ok(())
}

pub(super) fn list(settings: &Settings, asked: List) -> Result<(), Failure> {
    check_tenant(&asked.tenant)?;
    let found = with_rows(settings, async |_, db| {
        let filter = Filter {
            tenant: asked.tenant,
            q: asked.q,
            plan: asked.plan,
            among: None,
        };
        let mut found: Vec<Person> = Vec::new();
        loop {
            let part = Part {
                sort: "created_at",
                descending: false,
                start: found.len(),
                limit: PART,
            };
            let (people, _) = people::list(db, &filter, part).await.map_err(Failure::other)?;
            let last = people.len() < PART;
            found.extend(people);
            if last {
                return Ok(found);
            }
        }
    })?;
    if asked.json {
        let items: Vec<_> = found.iter().map(Person::own).collect();
        println!("{}", json!({"items": items}));
    } else {
        print_people(&found);
    }
    Ok(())
}

pub(super) fn reset_password(settings: &Settings, asked: &ResetPassword) -> Result<(), Failure> {
    check_tenant(&asked.tenant)?;
    let typed = if asked.password_stdin {
        Some(read_password()?)
    } else {
        None
    };
    let answer = with_rows(settings, async |config, db| {
        let (tenant, name) = (&asked.tenant, &asked.account);
        let found = match people::by_name(db, tenant, name).await.map_err(Failure::other)? {
            None => people::by_id(db, tenant, name).await.map_err(Failure::other)?,
            found => found,
        };
        let person = found.ok_or_else(|| Failure::other("there is no such account"))?;
        if let Some(password) = typed {
            let done = tools::set_password(db, &config.accounts, &person, &password).await;
            done.map_err(Failure::other)?;
            return Ok(json!({"id": person.id}));
        }
        let made = resets::make(db, &person.id, config.accounts.reset_ttl).await;
        let (token, expires_at) = made.map_err(Failure::other)?;
        let page = &config.accounts.reset_url;
        let link = (!page.is_empty()).then(|| page.replace(RESET_TOKEN, token.expose()));
        let expires_at = crate::accounts::person::written(expires_at);
        Ok(json!({"id": person.id, "token": token.expose(), "expires_at": expires_at, "link": link}))
    })?;
    if asked.json {
        println!("{answer}");
        return Ok(());
    }
    for (title, key) in [("token", "token"), ("link", "link"), ("expires at", "expires_at")] {
        if let Some(text) = answer[key].as_str() {
            println!("{title}: {text}");
        }
    }
    if asked.password_stdin {
        println!("the password was changed");
    }
    Ok(())
}

/// The database with its tables, for as long as `work` takes.
fn with_rows<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&Config, &Db) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config = settings.load()?;
    if !config.redis.url.is_empty() && !config.database.is_shared() {
        let problem = "needs a database that the nodes share (database.url), since they share Redis";
        return Err(Failure::Settings(problem.to_owned()));
    }
    block_on(async {
        let metrics = Arc::new(Metrics::new());
        let db = Db::open(&config.database, &config.data.dir, Migrations::all(), metrics);
        let db = db.map_err(|error| Failure::Settings(error.to_string()))?;
        let prepared = db.prepare(config.database.migrate).await;
        let done = match prepared {
            Ok(()) => work(&config, &db).await,
            Err(error) => Err(Failure::other(format!("database: {error}"))),
        };
        db.close().await;
        done
    })?
}

fn check_tenant(tenant: &str) -> Result<(), Failure> {
    if is_tenant(tenant) {
        Ok(())
    } else {
        Err(Failure::Settings(format!("no name of a tenant: {tenant:?}")))
    }
}

/// The first line of standard input.
fn read_password() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(MOST_INPUT).read_to_string(&mut text);
    read.map_err(|error| Failure::Other(format!("standard input: {error}")))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn print_people(people: &[Person]) {
    let text = |text: Option<&str>| table::printable(text.unwrap_or("-"));
    let rows: Vec<_> = people
        .iter()
        .map(|person| {
            [
                table::printable(&person.id),
                table::printable(&person.email),
                text(person.user_name.as_deref()),
                table::printable(&person.name),
                text(person.plan.as_deref()),
                person.all_scopes().to_string(),
                crate::accounts::person::written(person.created_at),
            ]
        })
        .collect();
    let titles = ["ID", "EMAIL", "USER NAME", "NAME", "PLAN", "SCOPE", "CREATED"];
    table::print(titles, &rows);
}
