//! Nodes to talk to: a chain in a process of its own, and one before it that answers as a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// A chain in a process of its own.
pub(crate) struct Devnet {
    pub(crate) process: Child,
    pub(crate) url: String,
}

impl Devnet {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
        command.args(["devnet", "--json", "--listen", "127.0.0.1:0"]).args(arguments);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        // One JSON document, which ends with a line of its own.
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            assert!(output.read_line(&mut text).unwrap() > 0, "the chain ended: {text}");
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        Self { process, url: value["url"].as_str().unwrap().to_owned() }
    }

    pub(crate) fn rpc(&self, method: &str, params: Value) -> Value {
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        ask(&self.url, &body)
    }
}

/// What a node answers.
fn ask(url: &str, body: &Value) -> Value {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"))
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a node before a chain does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// It answers as the chain.
    Forward,
    /// The chain gets the question, and nobody the answer.
    ForwardAndHangUp,
    /// The chain gets the question, and whoever asked is refused with these words.
    ForwardAndRefuse(String),
    /// It answers this.
    Result(Value),
    /// It refuses with these words.
    Error(String),
    /// It answers with these bytes.
    Raw(String),
    /// It answers without an end.
    Flood,
    /// It does not answer.
    Silence,
}

/// A node before a chain. It lives as long as the test.
pub(crate) struct Proxy {
    pub(crate) url: String,
}

impl Proxy {
    /// A node that answers for a chain as `reply` wants of a method and the whole question.
    pub(crate) fn before(
        chain: &Devnet,
        reply: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (chain, reply) = (chain.url.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (chain, reply) = (chain.clone(), Arc::clone(&reply));
                // Who hangs up in the middle is the test's matter.
                std::thread::spawn(move || serve(stream.unwrap(), &chain, &*reply));
            }
        });
        Self { url }
    }
}

fn serve(mut stream: TcpStream, chain: &str, reply: &dyn Fn(&str, &Value) -> Reply) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let question: Value = serde_json::from_slice(&body)?;
    let said =
        |key: &str, value: Value| serde_json::json!({ "jsonrpc": "2.0", "id": question["id"], key: value });
    let answer = match reply(question["method"].as_str().unwrap(), &question) {
        Reply::Forward => ask(chain, &question),
        Reply::ForwardAndHangUp => {
            ask(chain, &question);
            return Ok(());
        }
        Reply::Result(value) => said("result", value),
        Reply::ForwardAndRefuse(message) => {
            ask(chain, &question);
            said("error", serde_json::json!({ "code": -32_000, "message": message }))
        }
        Reply::Error(message) => said("error", serde_json::json!({ "code": -32_000, "message": message })),
        Reply::Raw(text) => return stream.write_all(text.as_bytes()),
        Reply::Flood => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 1 << 16])?;
            }
        }
        Reply::Silence => {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
    };
    let body = answer.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
