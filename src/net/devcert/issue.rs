//! The certificates themselves (RFC 5280).
//!
//! Owns: what stands in a development CA and server certificate, and whether those on disk still serve.
//! Does not: touch files.
//! Called by: [`super::ensure`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = DAY.saturating_mul(3_650);
/// Browsers refuse server certificates of 399 days and more (CA/Browser Forum baseline requirements, 6.3.2).
const LEAF_LIFE: Duration = DAY.saturating_mul(397);
/// Remaining life at which a certificate is made again.
const RENEWED_BEFORE: Duration = DAY.saturating_mul(30);
/// A certificate is valid from a little before it is made, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// Addresses taken over from an earlier certificate.
const MAX_ADDRESSES: usize = 16;

/// A certificate and its key, as written.
pub(super) struct Pems {
    pub(super) cert: String,
    pub(super) key: String,
}

/// The CA with its key.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    ends_at: SystemTime,
}

/// What matters of a server certificate that this CA signed.
pub(super) struct Leaf {
    pub(super) addresses: BTreeSet<IpAddr>,
    ends_at: SystemTime,
}

impl Ca {
    /// A new one.
    pub(super) fn make() -> Result<(Self, Pems), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // The name tells apart the CAs of several directories in one trust store.
        let id = params.key_identifier(&key);
        let name = format!(
            "Usher development CA {:02x}{:02x}{:02x}{:02x}",
            id[0], id[1], id[2], id[3]
        );
        params.distinguished_name = named(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let ends_at = set_life(&mut params, SystemTime::now() + CA_LIFE);
        let pems = Pems {
            cert: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Ok((
            Self {
                issuer: Issuer::new(params, key),
                ends_at,
            },
            pems,
        ))
    }

    /// The one on disk; none when it is broken or near its end.
    pub(super) fn read(cert: &str, key: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(cert.as_bytes()).ok()?;
        let (_, parsed) = parse_x509_certificate(&der).ok()?;
        let key = KeyPair::from_pem(key).ok()?;
        let ends_at = end(&parsed);
        let serves =
            parsed.is_ca() && is_key_of(&key, &parsed) && ends_at > SystemTime::now() + RENEWED_BEFORE;
        let issuer = Issuer::from_ca_cert_der(&der, key).ok()?;
        serves.then_some(Self { issuer, ends_at })
    }

    /// A new server certificate. The file holds it alone: whoever trusts the CA has the CA.
    pub(super) fn make_leaf(
        &self,
        listen: IpAddr,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<Pems, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Usher development server");
        let addresses = needed(listen)
            .into_iter()
            .chain(addresses)
            .take(MAX_ADDRESSES)
            .collect::<BTreeSet<_>>();
        params.subject_alt_names = addresses.into_iter().map(SanType::IpAddress).collect();
        for name in ["localhost".to_owned()].into_iter().chain(host_name()) {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let end = SystemTime::now() + LEAF_LIFE - BACKDATED;
        set_life(&mut params, end.min(self.ends_at));
        Ok(Pems {
            cert: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The server certificate on disk; none when it is broken or another CA's.
    pub(super) fn read_leaf(&self, cert: &str, key: &str) -> Option<Leaf> {
        let der = CertificateDer::from_pem_slice(cert.as_bytes()).ok()?;
        let (_, parsed) = parse_x509_certificate(&der).ok()?;
        let key = KeyPair::from_pem(key).ok()?;
        let ca_key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.issuer.key().public_key_raw());
        let is_ours = ca_key
            .verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data)
            .is_ok();
        if !is_ours || !is_key_of(&key, &parsed) {
            return None;
        }
        let names = parsed.subject_alternative_name().ok()??;
        let addresses = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::IPAddress(bytes) => to_ip(bytes),
            _ => None,
        });
        Some(Leaf {
            addresses: addresses.collect(),
            ends_at: end(&parsed),
        })
    }
}

impl Leaf {
    /// Whether it may be served at this address for a while.
    pub(super) fn is_good_for(&self, listen: IpAddr) -> bool {
        let is_fresh = self.ends_at > SystemTime::now() + RENEWED_BEFORE;
        is_fresh
            && needed(listen)
                .iter()
                .all(|address| self.addresses.contains(address))
    }
}

/// The loopback addresses, and the one listened on unless it stands for all.
fn needed(listen: IpAddr) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let listen = listen.to_canonical();
    if !listen.is_unspecified() && !addresses.contains(&listen) {
        addresses.push(listen);
    }
    addresses
}

/// This host's name, where it can stand in a certificate.
fn host_name() -> Option<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().ok()?.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (name.len() <= 253 && name != "localhost" && name.split('.').all(is_label)).then_some(name)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Usher development");
    name.push(DnType::CommonName, common_name);
    name
}

fn set_life(params: &mut CertificateParams, end: SystemTime) -> SystemTime {
    params.not_before = (SystemTime::now() - BACKDATED).into();
    params.not_after = end.into();
    end
}

fn end(cert: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn is_key_of(key: &KeyPair, cert: &X509Certificate<'_>) -> bool {
    key.subject_public_key_info() == cert.public_key().raw
}

fn to_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const LISTEN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_certificate_near_its_end_is_no_good() {
        let (ca, pems) = Ca::make().unwrap();
        assert!(Ca::read(&pems.cert, &pems.key).is_some());
        let leaf_ending_in = |days| {
            let ca = Ca {
                ends_at: SystemTime::now() + DAY * days,
                issuer: Ca::read(&pems.cert, &pems.key).unwrap().issuer,
            };
            let leaf = ca.make_leaf(LISTEN, BTreeSet::new()).unwrap();
            ca.read_leaf(&leaf.cert, &leaf.key).unwrap()
        };
        assert!(leaf_ending_in(31).is_good_for(LISTEN));
        assert!(!leaf_ending_in(29).is_good_for(LISTEN));
        let whole = ca.make_leaf(LISTEN, BTreeSet::new()).unwrap();
        let whole = ca.read_leaf(&whole.cert, &whole.key).unwrap();
        assert!(whole.ends_at <= SystemTime::now() + LEAF_LIFE);
        assert!(!whole.is_good_for("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn another_ca_s_certificate_is_not_ours() {
        let (ours, _) = Ca::make().unwrap();
        let (theirs, _) = Ca::make().unwrap();
        let leaf = theirs.make_leaf(LISTEN, BTreeSet::new()).unwrap();
        assert!(ours.read_leaf(&leaf.cert, &leaf.key).is_none());
    }

    #[test]
    fn earlier_addresses_are_kept_up_to_a_bound() {
        let (ca, _) = Ca::make().unwrap();
        let many = (0..100)
            .map(|number| IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)))
            .collect();
        let listen = "203.0.113.1".parse().unwrap();
        let leaf = ca.make_leaf(listen, many).unwrap();
        let leaf = ca.read_leaf(&leaf.cert, &leaf.key).unwrap();
        assert_eq!(leaf.addresses.len(), MAX_ADDRESSES);
        assert!(leaf.is_good_for(listen));
    }
}
