//! What is taken of the settings of a place before a client is made of them. Called by [`super::connect`]; pure.
//!
//! `object_store` builds addresses and headers of them and panics where that cannot be: what would make it do so
//! is refused here, by name and without its value. White space around a value is none of it: secrets of CI often
//! end with a line break.

use super::ObjectError;
use super::place::Service;

/// Settings that are not the user's to make here: the bucket comes from the URL, plain HTTP from the
/// endpoint, and writes have to be conditional.
const OWN: [&str; 10] = [
    "aws_bucket",
    "aws_bucket_name",
    "aws_allow_http",
    "aws_conditional_put",
    "aws_copy_if_not_exists",
    "google_bucket",
    "google_bucket_name",
    "azure_container_name",
    "azure_allow_http",
    "azure_storage_container_name",
];

/// Settings that are addresses: where one is plain HTTP, that is allowed.
const ADDRESSES: [&str; 6] = [
    "aws_endpoint",
    "aws_endpoint_url",
    "aws_endpoint_url_s3",
    "google_base_url",
    "azure_endpoint",
    "azure_storage_endpoint",
];

/// Settings that become part of an address or a header.
const PLAIN: [&str; 14] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_token",
    "aws_region",
    "aws_default_region",
    "aws_server_side_encryption",
    "aws_sse_kms_key_id",
    "azure_storage_account_name",
    "azure_storage_account_key",
    "azure_storage_sas_key",
    "azure_storage_token",
    "azure_client_id",
    "azure_tenant_id",
];

/// Settings that name a file with a token, which is read whenever credentials are asked for.
const TOKEN_FILES: [&str; 3] = [
    "aws_web_identity_token_file",
    "aws_container_authorization_token_file",
    "azure_federated_token_file",
];

/// Settings with which no file of a token is read.
const KEYS: [&str; 2] = ["aws_access_key_id", "azure_storage_account_key"];

/// Settings of a service, with names in lower case, that can be used.
#[derive(PartialEq, Eq)]
pub(super) struct Usable {
    pub(super) settings: Vec<(String, String)>,
    /// Whether an address among them is plain HTTP.
    pub(super) plain: bool,
}

/// Those of the settings that are of a service and the user's to make.
///
/// # Errors
/// [`ObjectError::Settings`], with the name of the variable.
pub(super) fn usable(service: Service, given: &[(String, String)]) -> Result<Usable, ObjectError> {
    let prefix = match service {
        Service::S3 => "aws_",
        Service::Gcs => "google_",
        Service::Azure => "azure_",
    };
    let mut usable = Usable { settings: Vec::new(), plain: false };
    for (variable, value) in given {
        let (name, value) = (variable.to_ascii_lowercase(), value.trim());
        if !name.starts_with(prefix) || value.is_empty() || OWN.contains(&name.as_str()) {
            continue;
        }
        let wrong = |why| Err(ObjectError::Settings(format!("{variable} {why}")));
        if ADDRESSES.contains(&name.as_str()) {
            match scheme_of(value) {
                Some(scheme) => usable.plain |= scheme == "http",
                None => return wrong("is no address of the form http(s)://host[:port]"),
            }
        } else if PLAIN.contains(&name.as_str()) && !value.chars().all(|c| c.is_ascii_graphic()) {
            return wrong("has characters that no such value has");
        }
        usable.settings.push((name, value.to_owned()));
    }
    let has = |name: &str| usable.settings.iter().any(|(there, _)| there == name);
    let (id, secret) = ("aws_access_key_id", "aws_secret_access_key");
    match (has(id), has(secret)) {
        (true, false) => Err(half(id, secret)),
        (false, true) => Err(half(secret, id)),
        _ => Ok(usable),
    }
}

/// The files with tokens that are read, by the names of their settings.
pub(super) fn token_files(settings: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    let has_keys = settings.iter().any(|(name, _)| KEYS.contains(&name.as_str()));
    let all = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    all.filter(move |(name, _)| !has_keys && TOKEN_FILES.contains(name))
}

fn half(there: &str, missing: &str) -> ObjectError {
    let (there, missing) = (there.to_ascii_uppercase(), missing.to_ascii_uppercase());
    ObjectError::Settings(format!("{there} is set and {missing} is not"))
}

/// The scheme of an address of HTTP.
fn scheme_of(address: &str) -> Option<&'static str> {
    let url = reqwest::Url::parse(address).ok().filter(|url| url.host_str().is_some())?;
    // What is left of the text after it is used as it is.
    let well = address.chars().all(|c| c.is_ascii_graphic()) && address.contains("://");
    ["http", "https"].into_iter().find(|scheme| well && *scheme == url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(all: &[(&str, &str)]) -> Result<Usable, String> {
        let all: Vec<_> =
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        usable(Service::S3, &all).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_shown() {
        for (name, value) in [
            ("AWS_ENDPOINT_URL", "hidden:9000"),
            ("AWS_ENDPOINT_URL_S3", "ftp://hidden"),
            ("AWS_ENDPOINT_URL", "http:hidden"),
            ("AWS_ENDPOINT_URL", "http://hid den"),
            ("AWS_ENDPOINT_URL", "http://"),
            ("AWS_SESSION_TOKEN", "hid\nden"),
            ("AWS_REGION", "hidden\u{e9}"),
            ("AWS_ACCESS_KEY_ID", "hidden"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ] {
            let error = settings(&[(name, value)]).err().unwrap();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("hid"), "{error}");
        }
    }

    #[test]
    fn what_stands_around_a_value_is_none_of_it() {
        let found = settings(&[
            ("AWS_ACCESS_KEY_ID", " id\n"),
            ("AWS_SECRET_ACCESS_KEY", "secret\r\n"),
            ("AWS_REGION", " "),
            ("AWS_BUCKET", "other"),
            ("AZURE_CLIENT_ID", "other"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/ü/token"),
            ("AWS_PROFILE", "Büro\nzwei"),
        ]);
        let expected = [
            ("aws_access_key_id", "id"),
            ("aws_secret_access_key", "secret"),
            ("aws_web_identity_token_file", "/ü/token"),
            ("aws_profile", "Büro\nzwei"),
        ];
        let found = found.ok().unwrap();
        let found: Vec<_> = found.settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn plain_http_is_allowed_where_the_address_says_so() {
        let plain = |address| settings(&[("AWS_ENDPOINT_URL", address)]).ok().unwrap().plain;
        assert!(plain("http://127.0.0.1:9000") && plain("HTTP://host/"));
        assert!(!plain("https://host") && !plain("https://http://x"));
    }
}
