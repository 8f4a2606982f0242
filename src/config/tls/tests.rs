//! Errors of the settings, with the file they are in; names and times.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;

/// Of 2026, when the certificates of these tests are valid.
const NOW: Duration = Duration::from_secs(1_790_000_000);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params =
        CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params
}

fn authority() -> Authority {
    let mut params = params(&[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

impl Authority {
    /// Certificate and key.
    fn issue(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn tls(&self, params: &CertificateParams) -> Tls {
        let (chain, key) = self.issue(params);
        Tls::from_pem(self.pem.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap()
    }
}

#[test]
fn a_certificate_is_for_its_names_and_addresses_and_for_nobody_else() {
    let tls = authority().tls(&params(&["alpha", "*.example.com", "127.0.0.1", "::1"]));
    assert_eq!(tls.names(), ["alpha", "*.example.com", "127.0.0.1", "::1"]);
    for name in ["alpha", "ALPHA", "a.example.com", "127.0.0.1", "::1"] {
        assert!(tls.covers(name), "{name}");
        assert_eq!(tls.check(name, NOW), Ok(()), "{name}");
    }
    for name in ["beta", "example.com", "a.b.example.com", "127.0.0.2", "no name at all", ""] {
        assert!(!tls.covers(name), "{name}");
    }
    let shown = format!("{tls:?}");
    assert!(shown.contains("alpha") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_member_without_a_name_or_with_that_of_another_does_not_start() {
    let tls = authority().tls(&params(&["alpha", "beta"]));
    let refused = tls.check("", NOW).unwrap_err();
    assert!(matches!(refused, TlsError::NoName { .. }));
    assert!(refused.to_string().contains("`alpha`, `beta`"), "{refused}");
    let refused = tls.check("gamma", NOW).unwrap_err();
    assert!(matches!(refused, TlsError::NameNotCovered { .. }));
    for told in ["`alpha`, `beta`", "`gamma`"] {
        assert!(refused.to_string().contains(told), "{refused}");
    }
}

#[test]
fn an_own_certificate_that_is_not_valid_now_is_refused() {
    let mut old = params(&["alpha"]);
    old.not_after = rcgen::date_time_ymd(2026, 1, 1);
    let refused = authority().tls(&old).check("alpha", NOW).unwrap_err();
    assert!(matches!(&refused, TlsError::Expired { when, .. } if when.ends_with("days ago")), "{refused}");
    let mut new = params(&["alpha"]);
    new.not_before = rcgen::date_time_ymd(2039, 1, 1);
    let refused = authority().tls(&new).check("alpha", NOW).unwrap_err();
    assert!(matches!(&refused, TlsError::Expired { when, .. } if when.contains("from now")), "{refused}");
    let mut server = params(&["alpha"]);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let refused = authority().tls(&server).check("alpha", NOW).unwrap_err();
    assert!(refused.to_string().contains("server and client"), "{refused}");
}

#[test]
fn each_file_that_is_wrong_is_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority = authority();
    let (chain, key) = authority.issue(&params(&["alpha"]));
    let other = authority.issue(&params(&["alpha"])).1;
    let (ca, own) = (write("ca.pem", &authority.pem), write("own.pem", &chain));
    let (secret, foreign) = (write("own.key", &key), write("foreign.key", &other));
    let noise = write("noise.pem", "no PEM at all");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken = write("broken.pem", broken);
    let missing = dir.path().join("missing.pem");
    assert!(Tls::from_files(&ca, &own, &secret).is_ok());
    let cases = [
        (Tls::from_files(&missing, &own, &secret), "cannot read the authority's certificate", "missing.pem"),
        (Tls::from_files(&ca, &missing, &secret), "cannot read the certificate", "missing.pem"),
        (Tls::from_files(&ca, &own, &missing), "cannot read the key", "missing.pem"),
        (Tls::from_files(&noise, &own, &secret), "no authority's certificate in PEM", "noise.pem"),
        (Tls::from_files(&ca, &noise, &secret), "no certificate in PEM", "noise.pem"),
        (Tls::from_files(&ca, &own, &noise), "no key in PEM", "noise.pem"),
        (Tls::from_files(&ca, &secret, &secret), "no certificate in PEM", "own.key"),
        (Tls::from_files(&broken, &own, &secret), "authority's certificate in", "cannot be used"),
        (Tls::from_files(&ca, &broken, &secret), "broken.pem", "cannot be used"),
        (Tls::from_files(&ca, &own, &foreign), "foreign.key does not belong to", "own.pem"),
    ];
    for (result, what, place) in cases {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(what) && text.contains(place), "{text}, not {what}");
    }
}
