//! Clients of web servers, and a store of models behind one. What a server says is checked by who reads it; here it is
//! only made to end.

use core::fmt;
use std::error::Error;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use metis_models::store::{Body, Origin, OriginError};
use reqwest::blocking::{Client, Response};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, RANGE,
};
use reqwest::{StatusCode, Url, redirect};

/// How often a server may send the client somewhere else.
const REDIRECTS: usize = 5;
/// Bytes that must arrive in the time of one timeout: whoever sends less would never be done.
const LEAST_PER_TIMEOUT: u64 = 4 << 10;

/// A store at an address.
#[derive(Debug)]
pub struct Http {
    base: Url,
    client: Client,
    timeout: Duration,
}

impl Http {
    /// The store at `address`, the folder that `manifests/` and `files/` are in. `timeout` bounds connecting and every wait for bytes.
    pub fn new(address: &str, timeout: Duration) -> anyhow::Result<Self> {
        let mut base = Url::parse(address)?;
        ensure!(matches!(base.scheme(), "http" | "https"), "only http:// and https:// are spoken here");
        ensure!(
            base.query().is_none() && base.fragment().is_none(),
            "the address of a store is that of a folder, without ? and #"
        );
        let mut path = base.path().to_owned();
        if !path.ends_with('/') {
            path.push('/');
            base.set_path(&path);
        }
        Ok(Self { base, client: client(timeout)?, timeout })
    }

    fn url(&self, name: &str) -> Result<Url, OriginError> {
        self.base.join(name).map_err(|error| OriginError::Answer(error.to_string()))
    }

    fn failed(&self, error: reqwest::Error) -> OriginError {
        OriginError::Answer(self.explain(&error))
    }

    fn explain(&self, error: &(dyn Error + 'static)) -> String {
        let text = explain(error, self.timeout);
        if text.contains("UnknownIssuer") {
            return format!("{text}; or use http: the model is checked by its hash either way");
        }
        text
    }
}

impl Origin for Http {
    fn locate(&self, name: &str) -> String {
        shown(self.base.join(name).unwrap_or_else(|_| self.base.clone()))
    }

    fn open(&self, name: &str, from: u64) -> Result<Body<'_>, OriginError> {
        let mut request = self.client.get(self.url(name)?).header(ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().map_err(|error| self.failed(error))?;
        let (start, length) = extent(response.status(), response.headers(), from, response.content_length())?;
        let reader = Arriving { origin: self, response, waited: Duration::ZERO, bytes: 0 };
        Ok(Body { start, length, reader: Box::new(reader) })
    }
}

/// The position at which an answer begins, and the file's length, from what stands before the body.
fn extent(
    status: StatusCode,
    headers: &HeaderMap,
    from: u64,
    content_length: Option<u64>,
) -> Result<(u64, Option<u64>), OriginError> {
    let answer = |text: String| Err(OriginError::Answer(text));
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(OriginError::Missing),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return answer(format!("it has no byte {from}: the file there was cut, or is another"));
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return answer(format!(
                "it answers {status}: it wants a user and a password, or does not serve this folder"
            ));
        }
        status if status.is_server_error() => return answer(format!("it answers {status}: try again later")),
        status => return answer(format!("it answers {status} instead of the file")),
    }
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if header(CONTENT_TYPE)
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
    {
        return answer("it answers with a web page: is this the address of a store's folder?".into());
    }
    if let Some(encoding) = header(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return answer(format!("it answers with {encoding} encoding, which was not asked for"));
    }
    if status == StatusCode::OK {
        return Ok((0, content_length));
    }
    match header(CONTENT_RANGE).and_then(range) {
        Some(range) => Ok(range),
        None => answer("it answers with a part of the file and does not say which".into()),
    }
}

/// The start of a `Content-Range` and the length of the whole file, if it says that.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (number(start)?, number(end)?);
    let length = if length == "*" { None } else { Some(number(length)?) };
    (start <= end && length.is_none_or(|length| end < length)).then_some((start, length))
}

/// A body as it arrives: every wait is bounded by the client's timeout, and all of them by a least speed.
struct Arriving<'a> {
    origin: &'a Http,
    response: Response,
    waited: Duration,
    bytes: u64,
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let read = self.response.read(buffer).map_err(|error| {
            let inner = error.get_ref().map(|inner| self.origin.explain(inner));
            io::Error::new(error.kind(), inner.unwrap_or_else(|| error.to_string()))
        })?;
        self.waited += start.elapsed();
        self.bytes += read as u64;
        if read > 0 && self.waited >= self.origin.timeout {
            if self.bytes < LEAST_PER_TIMEOUT {
                let text = format!("only {} bytes came in {} s", self.bytes, self.waited.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(read)
    }
}

impl fmt::Debug for Arriving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("response", &self.response).finish_non_exhaustive()
    }
}

/// An address for people and logs: without a user and a password.
pub fn shown(mut url: Url) -> String {
    // An address that cannot have a password has none.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.into()
}

/// The same of what somebody wrote as an address.
pub fn shown_text(address: &str) -> String {
    address.parse().map_or_else(|_| address.split('@').next_back().unwrap_or_default().to_owned(), shown)
}

/// What went wrong, without the address: whoever reports it names that. `timeout` is what was waited.
pub(crate) fn explain(error: &(dyn Error + 'static), timeout: Duration) -> String {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    let client_error = || causes().find_map(|cause| cause.downcast_ref::<reqwest::Error>());
    if client_error().is_some_and(reqwest::Error::is_timeout) {
        return format!("nothing came for {} s", timeout.as_secs());
    }
    if client_error().is_some_and(reqwest::Error::is_redirect) {
        return format!("it redirects more than {REDIRECTS} times, or to an address that is none");
    }
    // The last cause says it; those above only say where in the client.
    let cause = causes().last().unwrap_or(error).to_string();
    if cause.contains("InvalidContentType") {
        return format!("{cause}: it does not speak TLS here. Try http://, or another port");
    }
    if cause.contains("UnknownIssuer") {
        return format!(
            "{cause}: this system does not know who certifies the server. Install its certificates (ca-certificates)"
        );
    }
    cause
}

/// TLS in Rust. Whoever was first to install a provider has chosen one that is as good.
fn provide_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client of a node's JSON-RPC, whose requests end after `timeout`.
pub(crate) fn asynchronous(timeout: Duration) -> anyhow::Result<reqwest::Client> {
    provide_tls();
    // What is meant for one node is not for another: a redirection is an answer that is no use.
    let builder =
        || reqwest::Client::builder().timeout(timeout).referer(false).redirect(redirect::Policy::none());
    // A node on this machine is reached without any certificates.
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
        .context("the HTTP client does not start")
}

fn client(timeout: Duration) -> anyhow::Result<Client> {
    provide_tls();
    let builder = || {
        Client::builder()
            .user_agent(concat!("metisvm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeout)
            .timeout(timeout)
            .referer(false)
            .redirect(redirect::Policy::limited(REDIRECTS))
    };
    // A system without certificates still fetches over http: what arrives is checked by its hash.
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
        .map_err(|error| anyhow!(error))
        .context("the HTTP client does not start")
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn answer(status: u16, headers: &[(HeaderName, &'static str)]) -> Result<(u64, Option<u64>), String> {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        extent(StatusCode::from_u16(status).unwrap(), &headers, 7, Some(20))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_says_where_it_begins() {
        assert_eq!(answer(200, &[]), Ok((0, Some(20))));
        assert_eq!(answer(206, &[(CONTENT_RANGE, "bytes 7-26/27")]), Ok((7, Some(27))));
        assert_eq!(answer(206, &[(CONTENT_RANGE, "bytes 7-26/*")]), Ok((7, None)));
        for wrong in [
            "",
            "bytes",
            "bytes 7-26",
            "bytes 26-7/27",
            "bytes 7-27/27",
            "bytes +7-26/27",
            "7-26/27",
            "bytes -7-26/27",
            "bytes 7-99999999999999999999/*",
            "bytes */27",
        ] {
            let error = answer(206, &[(CONTENT_RANGE, wrong)]).unwrap_err();
            assert!(error.contains("does not say which"), "{wrong}: {error}");
        }
    }

    #[test]
    fn answers_that_are_no_file_are_explained() {
        for (status, says) in [
            (404, "there is no such file"),
            (410, "there is no such file"),
            (416, "no byte 7"),
            (403, "403 Forbidden"),
            (503, "503 Service Unavailable: try again later"),
            (304, "304 Not Modified instead of the file"),
        ] {
            assert!(answer(status, &[]).unwrap_err().contains(says), "{status}");
        }
        assert!(
            answer(200, &[(CONTENT_TYPE, "Text/HTML; charset=utf-8")]).unwrap_err().contains("a web page")
        );
        assert!(answer(200, &[(CONTENT_ENCODING, "gzip")]).unwrap_err().contains("gzip"));
    }

    #[test]
    fn addresses_lead_into_the_folder_and_show_no_password() {
        for (address, file) in [
            ("http://host", "http://host/files/0x00"),
            ("https://user:secret@host:8080/a/b", "https://host:8080/a/b/files/0x00"),
            ("http://host/a/", "http://host/a/files/0x00"),
        ] {
            let origin = Http::new(address, Duration::from_secs(1)).unwrap();
            assert_eq!(origin.locate("files/0x00"), file);
        }
        for wrong in ["ftp://host/", "http://host/?key=1", "http://host/#a", "http://", "host"] {
            assert!(Http::new(wrong, Duration::from_secs(1)).is_err(), "{wrong}");
        }
    }
}
