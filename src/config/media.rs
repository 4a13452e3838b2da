//! `[media]`: files, where they are, and who may bring how many.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// `[media]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Media {
    /// Directory of the files; empty: `media` in the data directory.
    pub dir: PathBuf,
    /// The largest file, in bytes.
    pub max_bytes: u64,
    /// Media types that are taken.
    pub types: Vec<String>,
    /// Whether a token that may only watch may upload too.
    pub viewers_upload: bool,
    /// An uploader that sends nothing for so long is given up.
    #[serde(with = "super::section::duration")]
    pub silence: Duration,
    /// How long an upload that stopped half-way can be resumed.
    #[serde(with = "super::section::duration")]
    pub partial_life: Duration,
    /// An object store in place of the directory.
    pub s3: MediaStore,
    /// Who looks at each file before anybody gets it.
    pub scan: MediaScan,
    /// What one tenant may take.
    pub quota: MediaQuota,
    /// How accesses are counted.
    pub statistics: MediaStatistics,
}

/// `[media.s3]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MediaStore {
    /// The bucket; empty: files are in `media.dir`.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// URL of a store that is not Amazon's; empty: Amazon's.
    pub endpoint: String,
    /// Access key; empty: what the machine's environment says.
    pub access_key: String,
    /// Its secret.
    pub secret_key: Secret,
    /// What every key begins with.
    pub prefix: String,
    /// Whether bytes are fetched from the store itself, by a signed URL.
    pub redirect: bool,
    /// How long such a URL is good.
    #[serde(with = "super::section::duration")]
    pub redirect_life: Duration,
}

/// `[media.scan]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MediaScan {
    /// `host:port` of clamd; empty: files are not scanned.
    pub clamd: String,
    /// The longest silence of it.
    #[serde(with = "super::section::duration")]
    pub timeout: Duration,
    /// How soon it is asked again about what it could not judge.
    #[serde(with = "super::section::duration")]
    pub retry: Duration,
}

/// `[media.quota]`: 0 is no limit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MediaQuota {
    /// Bytes of all files of a tenant.
    pub bytes: u64,
    /// Uploads of a tenant that a node takes at once.
    pub uploads: u32,
    /// Requests of a tenant to the routes of files at once.
    pub requests_burst: u32,
    /// And so many a second after that.
    pub requests_per_second: u32,
}

/// `[media.statistics]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MediaStatistics {
    /// Header with the viewer's nation, as a CDN sets it; empty: unknown.
    pub nation_header: String,
    /// Groups of fewer people are not told apart.
    pub floor: u32,
    /// A file that nobody fetched from for so long is closed.
    #[serde(with = "super::section::duration")]
    pub idle: Duration,
}
