//! JSON-RPC over HTTP, with answers that end.

use std::task;
use std::time::Duration;

use alloy_json_rpc::{RequestPacket, ResponsePacket};
use alloy_transport::{TransportError, TransportErrorKind, TransportFut};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use tower::Service;

use crate::http;

/// Bytes of an answer, at most: a chain's whole registry fits.
const MOST_BYTES: usize = 32 << 20;

/// A node behind an address.
#[derive(Clone, Debug)]
pub struct Transport {
    client: Client,
    url: Url,
    timeout: Duration,
}

impl Transport {
    /// The node at `url`, which must answer within `timeout`.
    pub fn new(url: Url, timeout: Duration) -> anyhow::Result<Self> {
        Ok(Self { client: http::asynchronous(timeout)?, url, timeout })
    }

    async fn ask(self, request: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let failed = |error: reqwest::Error| other(&http::explain(&error, self.timeout));
        let body = serde_json::to_vec(&request).map_err(TransportError::ser_err)?;
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let mut answer = request.send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            if body.len() + bytes.len() > MOST_BYTES {
                return Err(other(&format!("the answer has more than {} MiB", MOST_BYTES >> 20)));
            }
            body.extend_from_slice(&bytes);
        }
        let status = answer.status();
        match serde_json::from_slice::<ResponsePacket>(&body) {
            // Some servers give errors of JSON-RPC a status of HTTP.
            Ok(packet) if status.is_success() || packet.is_error() => Ok(packet),
            _ if !status.is_success() => Err(other(&format!("the server answers {status}"))),
            _ => Err(other("the answer is not JSON-RPC: is this the address of a node?")),
        }
    }
}

fn other(text: &str) -> TransportError {
    TransportErrorKind::custom_str(text)
}

impl Service<RequestPacket> for Transport {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        Box::pin(self.clone().ask(request))
    }
}
