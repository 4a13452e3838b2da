//! Who opened a socket and what for: all that is known when HTTP hands the connection over.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::auth::{Claims, LEEWAY};
use crate::config::Mode;
use crate::lease::group::Terms;
use crate::lease::model::Device;
use crate::lease::policy::{Entitlement, Policy, Viewer};
use crate::lease::shelf::Sight;
use crate::protocol::id::{AccountKey, ResumeSecret};
use crate::protocol::start::Start;
use crate::telemetry::RequestId;

/// A player.
pub struct Player {
    /// Whose streams are limited.
    pub account: AccountKey,
    /// What plays.
    pub device: Arc<Device>,
    /// Whether the player named its device; a session of another one is not resumed then.
    pub named: bool,
    /// What it wants to play.
    pub content: Arc<str>,
    /// Contents that the token allows; none: all.
    pub contents: Option<Box<[String]>>,
    /// What its token shows of the catalogue.
    pub sight: Sight,
    /// What its token entitles to.
    pub entitlement: Entitlement,
    /// The plan that the token names.
    pub plan: Option<Arc<str>>,
    /// The streams that the token names.
    pub streams: Option<u32>,
    /// The profile that the token names.
    pub profile: Option<Arc<str>>,
    /// What to do at the limit.
    pub on_limit: Mode,
    /// The session that it had before.
    pub resume: Option<ResumeSecret>,
    /// Messages after this id are wanted; none: nothing old.
    pub since: Option<u64>,
    /// When the token stops being good.
    pub token_end: SystemTime,
    /// The request that opened the socket.
    pub request: RequestId,
    /// Where it comes from.
    pub address: IpAddr,
}

/// Why a start is forbidden to a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The token names another device.
    Device,
    /// The token does not allow the content.
    Content,
}

impl Player {
    /// Joins what the token says with what the request asks.
    ///
    /// # Errors
    /// When the two contradict each other.
    pub fn new(
        claims: Claims,
        start: Start,
        entitlement: Entitlement,
        request: RequestId,
        address: IpAddr,
    ) -> Result<Self, Forbidden> {
        let token_end = token_end(&claims);
        let sight = Sight::of(&claims);
        let contents = claims.contents.map(Vec::into_boxed_slice);
        if !allows(contents.as_deref(), &start.content) {
            return Err(Forbidden::Content);
        }
        let id = match (claims.device, start.device) {
            (Some(claimed), Some(asked)) if *claimed != *asked => return Err(Forbidden::Device),
            (Some(claimed), _) => Some((*claimed).into()),
            (None, asked) => asked.map(String::into_boxed_str),
        };
        let named = id.is_some();
        // Without a name each start is a device of its own.
        let id = id.unwrap_or_else(|| format!("anonymous-{}", ResumeSecret::generate().session()).into());
        let device = Device {
            id,
            name: start.device_name.map(String::into_boxed_str),
            class: start.device_class.map(String::into_boxed_str),
            plan: claims.plan.clone(),
        };
        Ok(Self {
            account: AccountKey {
                tenant: claims.tenant,
                account: claims.account,
            },
            device: Arc::new(device),
            named,
            content: start.content.into(),
            contents,
            sight,
            entitlement,
            plan: claims.plan,
            streams: claims.streams,
            profile: claims.profile,
            on_limit: start.on_limit,
            resume: start.resume,
            since: start.since,
            token_end,
            request,
            address,
        })
    }

    /// What the player counts in when it plays this on that device.
    #[must_use]
    pub fn terms(&self, policy: &Policy, device: &Device, content: &str) -> Terms {
        policy.terms(&Viewer {
            account: &self.account,
            plan: self.plan.as_deref(),
            profile: self.profile.as_deref(),
            device,
            content,
            address: self.address,
        })
    }

    /// Whether the token allows a content.
    #[must_use]
    pub fn may_play(&self, content: &str) -> bool {
        allows(self.contents.as_deref(), content)
    }
}

/// A session ends with its token. One that was accepted within the leeway gets the rest of the leeway.
#[must_use]
pub fn token_end(claims: &Claims) -> SystemTime {
    let now = SystemTime::now();
    if claims.expires_at > now {
        claims.expires_at
    } else {
        claims.expires_at + LEEWAY
    }
}

fn allows(contents: Option<&[String]>, content: &str) -> bool {
    contents.is_none_or(|allowed| allowed.iter().any(|one| one == content))
}
