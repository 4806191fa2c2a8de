//! The bucket: S3, of AWS or of anything that speaks its protocol.
//!
//! Guarantees: an object is put whole or not at all, never over another one ([`Put::Exists`]); each call ends within
//! [`DEADLINE`], retries of the SDK included; what is large goes in parts of [`PART`] bytes, of which one is in memory, and
//! parts of an upload that failed are taken away. Integrity on the way there is the SDK's (a CRC32 with each request);
//! what is read is verified by whoever knows what it should be.

use std::io::{self, Read};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use bytes::Bytes;
use common::location::{Key, Location, Token};

/// Longest wait for one call, its retries included.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for one try, which moves at most [`PART`] bytes.
const TRY: Duration = Duration::from_secs(25);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Tries of one call: with three, the archive could not be read through a bucket that spoils three of ten answers.
const TRIES: u32 = 5;
/// Larger objects are put in parts of this size: S3 takes 10,000 of at least 5 MiB.
pub const PART: usize = 16 << 20;

/// Before more bytes than these are sent the server is asked whether the object is there: one that refuses it closes the
/// connection in the middle of the body, and its answer is lost.
const ASK_FIRST: usize = 256 << 10;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are of no use.
    #[error("set up S3: {0}")]
    Setup(String),
    /// The server said no, or did not answer.
    #[error("{what} s3://{bucket}/{key}: {reason}")]
    Call {
        /// Which call.
        what: &'static str,
        /// On which bucket.
        bucket: String,
        /// And key, or prefix.
        key: String,
        /// The error code and text of S3, or what was wrong with the connection.
        reason: String,
    },
    /// What was to be put could not be read.
    #[error("read what is to be put as {key}: {source}")]
    Read {
        /// The key.
        key: String,
        /// Cause.
        source: io::Error,
    },
}

/// What became of an object that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Stored,
    /// One was there already, and was left as it is.
    Exists,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A bucket.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    bucket: String,
}

impl Store {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// An authority that is no certificate.
    pub fn new(location: &Location) -> Result<Self, Error> {
        let trust = match &location.authority {
            Some(pem) => TrustStore::empty().with_pem_certificate(pem.as_bytes()),
            None => TrustStore::default(),
        };
        let tls = TlsContext::builder().with_trust_store(trust).build();
        let tls = tls.map_err(|error| Error::Setup(error.to_string()))?;
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https();
        let Key { id, secret, token } = &location.key;
        let token = token.as_ref().map(|Token(token)| token.expose().to_owned());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(TRY)
            .operation_timeout(DEADLINE)
            .build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(location.region.clone()))
            .force_path_style(location.force_path_style)
            .credentials_provider(Credentials::new(id, secret.expose(), token, None, "pelorus"))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES));
        if let Some(endpoint) = &location.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok(Self { client: Client::from_conf(config.build()), bucket: location.bucket.clone() })
    }

    /// Puts an object unless there is one.
    ///
    /// # Errors
    /// The server's. The object may be there all the same: ask again, and it is [`Put::Exists`].
    pub async fn put_new(&self, key: &str, body: impl Into<Bytes>) -> Result<Put, Error> {
        let body = body.into();
        if body.len() > ASK_FIRST && self.exists(key).await? {
            return Ok(Put::Exists);
        }
        let put = self.client.put_object().bucket(&self.bucket).key(key).if_none_match("*");
        let put = put.body(ByteStream::from(body)).send().await;
        self.stored("put", key, put)
    }

    /// Puts all that can be read, unless there is an object.
    ///
    /// # Errors
    /// As [`Store::put_new`], and those of reading.
    pub async fn put_new_from(&self, key: &str, reader: impl Read + Send + 'static) -> Result<Put, Error> {
        let (reader, first) = self.part(key, reader).await?;
        if first.len() < PART {
            return self.put_new(key, first).await;
        }
        if self.exists(key).await? {
            return Ok(Put::Exists);
        }
        let begin = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        let begun = begin.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await;
        let begun = begun.map_err(|error| self.failed("begin", key, &error))?;
        let upload = begun.upload_id().unwrap_or_default().to_owned();
        let put = self.put_parts(key, &upload, first, reader).await;
        if !matches!(put, Ok(Put::Stored)) {
            let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(&upload);
            if let Err(error) = abort.send().await {
                tracing::warn!(error = %self.failed("abort", key, &error), "parts of an upload stay behind");
            }
        }
        put
    }

    async fn put_parts(
        &self,
        key: &str,
        upload: &str,
        first: Bytes,
        mut reader: impl Read + Send + 'static,
    ) -> Result<Put, Error> {
        let (mut part, mut parts) = (first, Vec::new());
        for number in 1.. {
            let length = part.len();
            let sent = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(upload).part_number(number);
            let sent = sent.body(ByteStream::from(part)).send().await;
            let sent = sent.map_err(|error| self.failed("put a part of", key, &error))?;
            parts.push(
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(sent.e_tag)
                    .set_checksum_crc32(sent.checksum_crc32)
                    .build(),
            );
            if length < PART {
                break;
            }
            (reader, part) = self.part(key, reader).await?;
            if part.is_empty() {
                break;
            }
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        self.stored("complete", key, complete.multipart_upload(parts).if_none_match("*").send().await)
    }

    /// The next part, shorter than [`PART`] at the end.
    async fn part<R: Read + Send + 'static>(&self, key: &str, mut reader: R) -> Result<(R, Bytes), Error> {
        let read = tokio::task::spawn_blocking(move || {
            let mut part = Vec::new();
            reader.by_ref().take(PART as u64).read_to_end(&mut part)?;
            Ok((reader, Bytes::from(part)))
        });
        let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.map_err(|source| Error::Read { key: key.to_owned(), source })
    }

    /// Whether there is an object.
    ///
    /// # Errors
    /// The server's.
    pub async fn exists(&self, key: &str) -> Result<bool, Error> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(true),
            // An answer without a body has no code: the status is all there is.
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 404) => Ok(false),
            Err(error) => Err(self.failed("look at", key, &error)),
        }
    }

    /// An object; `None` where there is none.
    ///
    /// # Errors
    /// The server's.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        self.read(key, None).await
    }

    /// The first bytes of an object, at most `count`; `None` where there is none.
    ///
    /// # Errors
    /// The server's.
    pub async fn get_front(&self, key: &str, count: usize) -> Result<Option<Bytes>, Error> {
        self.read(key, Some(format!("bytes=0-{}", count.saturating_sub(1)))).await
    }

    /// Bytes of an object from `from` on, at most `count`; `None` where there is none.
    ///
    /// # Errors
    /// The server's, one for a part that is beyond the end among them.
    pub async fn get_part(&self, key: &str, from: u64, count: u64) -> Result<Option<Bytes>, Error> {
        self.read(key, Some(format!("bytes={from}-{}", from.saturating_add(count).saturating_sub(1)))).await
    }

    async fn read(&self, key: &str, range: Option<String>) -> Result<Option<Bytes>, Error> {
        let got = self.client.get_object().bucket(&self.bucket).key(key).set_range(range).send().await;
        let got = match got {
            Ok(got) => got,
            Err(error) if code(&error) == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(self.failed("get", key, &error)),
        };
        let body = tokio::time::timeout(DEADLINE, got.body.collect()).await;
        match body {
            Ok(Ok(body)) => Ok(Some(body.into_bytes())),
            Ok(Err(error)) => Err(self.call("get", key, format!("{}", DisplayErrorContext(&error)))),
            Err(_) => Err(self.call("get", key, format!("its content did not come within {DEADLINE:?}"))),
        }
    }

    /// All objects below a prefix, in the order of their keys.
    ///
    /// # Errors
    /// The server's.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let mut found = Vec::new();
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed("list", prefix, &error))?;
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| {
                Some(Listed { key: object.key?, size: object.size.and_then(|size| size.try_into().ok()).unwrap_or(0) })
            }));
        }
        // Servers other than AWS need not keep the order of bytes.
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    /// Names of the folders below a prefix that ends with a slash, without the prefix and without their slash.
    ///
    /// # Errors
    /// The server's.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).delimiter("/");
        let mut pages = list.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed("list", prefix, &error))?;
            found.extend(
                page.common_prefixes
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|folder| Some(folder.prefix?.strip_prefix(prefix)?.trim_end_matches('/').to_owned())),
            );
        }
        found.sort();
        Ok(found)
    }

    /// Takes an object away; one that is not there is no error.
    ///
    /// # Errors
    /// The server's.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let gone = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        gone.map(drop).map_err(|error| self.failed("delete", key, &error))
    }

    fn stored<T, E>(&self, what: &'static str, key: &str, put: Result<T, SdkError<E>>) -> Result<Put, Error>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match put {
            Ok(_) => Ok(Put::Stored),
            Err(error) if code(&error) == Some("PreconditionFailed") => Ok(Put::Exists),
            Err(error) => Err(self.failed(what, key, &error)),
        }
    }

    fn failed<E>(&self, what: &'static str, key: &str, error: &SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        // The answer of a server by code and text, without the headers that the SDK's own text has.
        let reason = match code(error) {
            Some(code) => format!("{code}: {}", error.message().unwrap_or("no more was said")),
            None => format!("{}", DisplayErrorContext(error)),
        };
        self.call(what, key, reason)
    }

    fn call(&self, what: &'static str, key: &str, reason: String) -> Error {
        Error::Call { what, bucket: self.bucket.clone(), key: key.to_owned(), reason }
    }
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    ProvideErrorMetadata::code(error)
}
