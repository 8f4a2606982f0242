//! `karere certs`: an authority for development, and certificates for members. Not for production: whoever reads its
//! directory can be anybody.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use karere::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::output::{self, Failure, JsonTo};

/// How long the authority is valid.
const AUTHORITY_DAYS: u64 = 3650;
/// Clocks differ.
const BEFORE: Duration = Duration::from_secs(3600);
const DAY: u64 = 24 * 60 * 60;

/// Options of `karere certs`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the files are: ca.pem, ca.key, and for each name NAME.pem, NAME.key. It is made if need be.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A member to make a certificate for. May be given several times.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// A host or address that these members are dialled by, beside localhost, 127.0.0.1 and ::1. May be given several
    /// times.
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// How many days the members' certificates are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=AUTHORITY_DAYS))]
    days: u64,
    /// Replace members' files that are there. The authority is never replaced.
    #[arg(long)]
    force: bool,
    /// One line of JSON on standard output at the end.
    #[arg(long)]
    json: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    authority: PathBuf,
    /// Whether the authority was made now.
    authority_is_new: bool,
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
struct Member {
    name: String,
    certificate: PathBuf,
    key: PathBuf,
    /// Names and addresses that the certificate is for.
    names: Vec<String>,
    days: u64,
}

/// Runs the command.
///
/// # Errors
/// If a file is there already, cannot be read or cannot be written. Files that were made before stay.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let dir = &options.dir;
    check(options)?;
    fs::create_dir_all(dir)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", dir.display())))?;
    let (issuer, authority_is_new) = authority(dir)?;
    let authority = dir.join("ca.pem");
    let members: Result<Vec<_>, _> =
        options.names.iter().map(|name| member(options, &authority, &issuer, name)).collect();
    let made = Made { authority, authority_is_new, members: members? };
    if options.json {
        return output::json_line(JsonTo::Stdout, &made);
    }
    let how = if made.authority_is_new { "made" } else { "found" };
    output::say(&format!("authority: {} ({how})", made.authority.display()));
    for member in &made.members {
        let Member { name, certificate, key, names, days } = member;
        let (certificate, key, names) = (certificate.display(), key.display(), names.join(", "));
        output::say(&format!("{name}: {certificate}, {key}; for {names}; {days} days"));
    }
    Ok(())
}

/// Nothing is written before everything is known to be writable under these names.
fn check(options: &Options) -> Result<(), Failure> {
    for name in &options.names {
        let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        if name == "ca" || name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            let failure = Failure::new(format!("`{name}` cannot be the name of a member here"));
            return Err(failure.tries("letters, digits, `-`, `_` and `.`, and not `ca`"));
        }
        let there = files(&options.dir, name).into_iter().find(|path| path.exists());
        if let Some(path) = there.filter(|_| !options.force) {
            let failure = Failure::new(format!("{} is there already", path.display()));
            return Err(failure.state("nothing was changed").tries("--force to replace it"));
        }
    }
    Ok(())
}

fn files(dir: &Path, name: &str) -> [PathBuf; 2] {
    [dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))]
}

/// The authority of the directory, made if it is not there.
fn authority(dir: &Path) -> Result<(Issuer<'static, KeyPair>, bool), Failure> {
    let [pem, key] = files(dir, "ca");
    if pem.exists() || key.exists() {
        let read = |path: &Path| {
            let unreadable = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
            fs::read_to_string(path).map_err(unreadable)
        };
        let unusable = |path: &Path, error: rcgen::Error| {
            Failure::new(format!("{} is no key or certificate of an authority: {error}", path.display()))
        };
        let (certificate, secret) = (read(&pem)?, read(&key)?);
        let secret = KeyPair::from_pem(&secret).map_err(|error| unusable(&key, error))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, secret);
        return Ok((issuer.map_err(|error| unusable(&pem, error))?, false));
    }
    let secret = KeyPair::generate().map_err(not_made)?;
    // Each has a name of its own, or one would be taken for another and its certificates for forged.
    let digest = Sha256::digest(secret.public_key_raw());
    let number: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = valid(Vec::new(), AUTHORITY_DAYS, &format!("karere development authority {number}"))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write(&key, &secret.serialize_pem(), true)?;
    write(&pem, &params.self_signed(&secret).map_err(not_made)?.pem(), false)?;
    Ok((Issuer::new(params, secret), true))
}

fn member(
    options: &Options,
    authority: &Path,
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
) -> Result<Member, Failure> {
    let mut names = vec![name.to_owned()];
    names.extend(options.hosts.iter().cloned());
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let mut params = valid(names, options.days, name)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Every member dials and accepts.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let secret = KeyPair::generate().map_err(not_made)?;
    let signed = params.signed_by(&secret, issuer).map_err(not_made)?;
    let [certificate, key] = files(&options.dir, name);
    write(&key, &secret.serialize_pem(), true)?;
    write(&certificate, &signed.pem(), false)?;
    // What a messenger would say of it is better said now.
    let tls =
        Tls::from_files(authority, &certificate, &key).map_err(|error| Failure::new(error.to_string()))?;
    Ok(Member { name: name.to_owned(), certificate, key, names: tls.names(), days: options.days })
}

fn valid(names: Vec<String>, days: u64, common_name: &str) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(names).map_err(not_made)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + since;
    params.not_before = now - BEFORE;
    params.not_after = now + Duration::from_secs(days * DAY);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn not_made(error: rcgen::Error) -> Failure {
    Failure::new(format!("cannot make the certificate: {error}"))
}

/// Writes a whole file or none. A secret is for its owner only, from its first byte on.
fn write(path: &Path, text: &str, secret: bool) -> Result<(), Failure> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(".new");
    let hidden = PathBuf::from(hidden);
    let all = || -> io::Result<()> {
        if hidden.exists() {
            // Of a run that was killed.
            fs::remove_file(&hidden)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if secret {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        #[cfg(not(unix))]
        let _ = secret;
        let mut file = options.open(&hidden)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&hidden, path)
    };
    all().map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
