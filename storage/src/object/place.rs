//! [`Place`]: what a storage URL names: service, bucket and prefix, with their grammar. Called by
//! [`super::ObjectBackend::open`] and by whoever checks a setting. No I/O.

use std::fmt;

use super::ObjectError;
use crate::limits;

/// The services there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `s3://`: Amazon S3 and what is compatible.
    S3,
    /// `gs://`: Google Cloud Storage.
    Gcs,
    /// `az://`: Azure Blob Storage.
    Azure,
}

impl Service {
    /// The scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket, or container, and the prefix of all names in it. Shown as its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The service.
    pub service: Service,
    /// The bucket or container.
    pub bucket: String,
    /// Empty, or segments joined by `/`, without one at the end.
    pub prefix: String,
}

impl Place {
    /// The place that a URL `scheme://bucket[/prefix]` names. Segments of the prefix are of
    /// `[A-Za-z0-9._-]`, none of them `.` or `..`.
    ///
    /// # Errors
    /// [`ObjectError::Url`], which does not repeat the URL: one with a password may be in its place.
    pub fn parse(url: &str) -> Result<Self, ObjectError> {
        let (scheme, rest) = url.split_once("://").ok_or(ObjectError::Url("it has no scheme"))?;
        let service = [Service::S3, Service::Gcs, Service::Azure]
            .into_iter()
            .find(|service| service.scheme() == scheme)
            .ok_or(ObjectError::Url("the scheme is not s3, gs or az"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
        if !segment(bucket) {
            return Err(ObjectError::Url(
                "the bucket is not a name of letters, digits, '.', '_', '-'",
            ));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !prefix.is_empty() && !prefix.split('/').all(segment) {
            return Err(ObjectError::Url(
                "the prefix is not segments of letters, digits, '.', '_', '-' joined by '/'",
            ));
        }
        if bucket.len() + prefix.len() > limits::MAX_OBJECT_PREFIX_BYTES {
            return Err(ObjectError::Url("it is too long"));
        }
        Ok(Self { service, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// The key in the bucket of what is called `name` here.
    pub(super) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }

    /// The name here of a key in the bucket.
    pub(super) fn name<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() {
            return Some(key);
        }
        key.strip_prefix(&self.prefix)?.strip_prefix('/')
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service.scheme(), self.key_of_bucket())
    }
}

impl Place {
    fn key_of_bucket(&self) -> String {
        if self.prefix.is_empty() {
            self.bucket.clone()
        } else {
            format!("{}/{}", self.bucket, self.prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_put_together() {
        for (url, service, bucket, prefix) in [
            ("s3://b", Service::S3, "b", ""),
            ("gs://b/", Service::Gcs, "b", ""),
            ("az://b/a/B-c_d.e/", Service::Azure, "b", "a/B-c_d.e"),
        ] {
            let place = Place::parse(url).unwrap();
            assert_eq!((place.service, &*place.bucket, &*place.prefix), (service, bucket, prefix));
            assert_eq!(place.to_string(), url.trim_end_matches('/'));
            let key = place.key("blobs/x");
            assert_eq!(place.name(&key), Some("blobs/x"));
        }
        let place = Place::parse("s3://b/ab").unwrap();
        assert_eq!(place.name("abc/x"), None);
        assert_eq!(place.name("ab"), None);
    }

    #[test]
    fn what_is_no_place_is_refused_and_not_repeated() {
        let long = format!("s3://b/{}", "x".repeat(600));
        for url in [
            "",
            "b/p",
            "s3:/b",
            "http://b",
            "S3://b",
            "s3://",
            "s3:///p",
            "s3://.",
            "s3://b//p",
            "s3://b/a//b",
            "s3://b/../x",
            "s3://b/.",
            "s3://b/a b",
            "s3://b/p?q",
            "s3://b/p#f",
            "s3://user:hunter2@b/p",
            "s3://b:9000/p",
            "s3://b/ü",
            &long,
        ] {
            let error = Place::parse(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
