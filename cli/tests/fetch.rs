//! Models through the network: what a server does, the command ends with the exact bundle or says what was wrong and where.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use metis_models::Bundle;
use metis_models::bundle::{BundleParts, merkle};
use metis_models::fixture::Fixture;
use metis_models::store::{file_name, leaves_name, manifest_name, publish};

static PARTS: LazyLock<BundleParts> =
    LazyLock::new(|| Fixture::default().bundle(tempfile::tempdir().unwrap().path()).unwrap());

/// A store on disk, which all tests read.
static STORE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let store = tempfile::tempdir().unwrap();
    let bundle = PARTS.clone().into_bundle().unwrap();
    publish(&bundle, store.path(), &metis_models::import::ProgressBar::hidden()).unwrap();
    store
});

fn id() -> String {
    PARTS.id().to_string()
}

fn weights() -> String {
    file_name(merkle::root(&PARTS.weights))
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let roots = [&PARTS.tokenizer, &PARTS.weights].map(|file| merkle::root(file));
    let names = roots.map(|root| [file_name(root), leaves_name(root)]).concat();
    let all = names.into_iter().chain([manifest_name(PARTS.id())]);
    all.map(|name| (name.clone(), fs::read(STORE.path().join(name)).unwrap())).collect()
}

/// What a client asks for: the path without its slash, and the first byte if it names one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    path: String,
    from: Option<usize>,
}

/// A web server in a thread, and what it was asked for.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, log, answer) = (stream.unwrap(), Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    answer(&request, &mut stream);
                });
            }
        });
        Self { address, requests }
    }

    /// A server of files that does what static servers do.
    fn of(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::new(move |request, stream| match files.get(&request.path) {
            Some(file) => send(stream, request, file, true),
            None => not_found(stream),
        })
    }

    fn requests_of(&self, path: &str) -> Vec<Option<usize>> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.path == path).map(|request| request.from).collect()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let (mut path, mut from) = (None, None);
    for line in BufReader::new(stream).lines() {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET /") {
            path = Some(rest.split(' ').next()?.to_owned());
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = Some(range.strip_suffix('-')?.parse().ok()?);
        }
    }
    Some(Request { path: path?, from })
}

/// The head of an answer with the file, and what of the file comes after it.
fn answer<'a>(request: &Request, file: &'a [u8], ranges: bool) -> (String, &'a [u8]) {
    match request.from {
        Some(from) if ranges => {
            let (last, length) = (file.len() - 1, file.len());
            let rest = &file[from..];
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{length}\r\nContent-Length: {}",
                rest.len()
            );
            (head, rest)
        }
        _ => (format!("HTTP/1.1 200 OK\r\nContent-Length: {}", file.len()), file),
    }
}

/// Clients hang up when they have heard enough; that is no failure of the server.
fn write(stream: &mut TcpStream, head: &str, body: &[u8]) {
    let _ = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
    let _ = stream.write_all(body);
    let _ = stream.flush();
}

fn send(stream: &mut TcpStream, request: &Request, file: &[u8], ranges: bool) {
    let (head, body) = answer(request, file, ranges);
    write(stream, &head, body);
}

fn not_found(stream: &mut TcpStream) {
    write(stream, "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 6", b"<html>");
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
    // A proxy of the machine that runs the tests does not reach their servers.
    command.args(arguments).env("NO_PROXY", "*");
    command
}

fn fetch(into: &Path, from: &[&str], more: &[&str]) -> Output {
    let (id, into) = (id(), into.to_str().unwrap());
    let mut arguments = vec!["model", "fetch", &id, "--into", into];
    arguments.extend(from.iter().flat_map(|from| ["--from", from]));
    arguments.extend(more);
    command(&arguments).output().unwrap()
}

fn fetched(into: &Path, from: &[&str]) -> String {
    let output = fetch(into, from, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    exact(into);
    String::from_utf8(output.stdout).unwrap()
}

/// Fetches what cannot be fetched, and checks that the message contains all of `says`.
fn refused(into: &Path, from: &[&str], more: &[&str], says: &[&str]) {
    let output = fetch(into, from, more);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let message = message.lines().find(|line| line.starts_with("error: ")).expect("an error");
    for part in says {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert!(!into.join(id()).exists(), "half a model is there");
}

/// The bundle is there, every byte of it, and nothing beside it.
fn exact(into: &Path) {
    let names: Vec<_> = fs::read_dir(into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [&*id()]);
    let bundle = Bundle::open_model(into.join(id()), PARTS.id()).unwrap();
    assert!(bundle.file("weights.safetensors").unwrap() == PARTS.weights);
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The weights of a fetch that is not done.
    fn partial_weights(&self) -> PathBuf {
        self.path().join(format!(".{}.partial/weights.safetensors", id()))
    }
}

#[test]
fn what_one_publishes_another_fetches() {
    let folder = Folder::new();
    let [bundle, store, into] = ["bundle", "store", "into"].map(|name| folder.path().join(name));
    PARTS.write(&bundle).unwrap();
    let publish = ["model", "publish", bundle.to_str().unwrap(), "-o", store.to_str().unwrap()];
    let output = command(&publish).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("id {}", id())));
    let output = command(&[&publish[..], &["--json"]].concat()).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["id"], &value["written"]), (&id().into(), &false.into()));

    assert!(fetched(&into, &[store.to_str().unwrap()]).contains(&id()), "from a folder");
    fs::remove_dir_all(&into).unwrap();
    let server = Server::of(files());
    let output = fetch(&into, &[&format!("{}/", server.address)], &["--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["id"], &value["was_there"]), (&id().into(), &false.into()));
    exact(&into);
    let asked = server.requests.lock().unwrap().len();
    assert!(fetched(&into, &[&server.address]).contains("is there and intact"));
    assert_eq!(server.requests.lock().unwrap().len(), asked, "a model that is there is not asked for");
}

#[test]
fn publishing_what_is_no_intact_bundle_writes_nothing() {
    let folder = Folder::new();
    let [bundle, store] = ["bundle", "store"].map(|name| folder.path().join(name));
    PARTS.write(&bundle).unwrap();
    let mut weights = PARTS.weights.clone();
    weights[5_000] ^= 1;
    fs::write(bundle.join("weights.safetensors"), weights).unwrap();
    let arguments = ["model", "publish", bundle.to_str().unwrap(), "-o", store.to_str().unwrap()];
    let output = command(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("leaf 4"));
    assert!(!store.exists());
}

#[test]
fn an_interrupted_fetch_goes_on_where_it_stopped() {
    for ranges in [true, false] {
        let folder = Folder::new();
        let files = files();
        // Dies in the middle of the weights, and then is not there any more.
        let server = Server::new(move |request, stream| match &files[&request.path] {
            _ if request.from.is_some() => drop(stream.shutdown(std::net::Shutdown::Both)),
            file if request.path == weights() => {
                write(stream, &answer(request, file, false).0, &file[..20_000]);
            }
            file => send(stream, request, file, false),
        });
        let says = ["weights.safetensors", &weights(), "kept in", "the same command goes on"];
        refused(folder.path(), &[&server.address], &[], &says);
        assert_eq!(fs::metadata(folder.partial_weights()).unwrap().len(), 19_456, "whole leaves only");

        let files = self::files();
        let server = Server::new(move |request, stream| send(stream, request, &files[&request.path], ranges));
        assert!(fetched(folder.path(), &[&server.address]).contains("were there"));
        assert_eq!(server.requests_of(&weights()), [Some(19_456)]);
        assert_eq!(server.requests.lock().unwrap().len(), 1, "what is there is not asked for again");
    }
}

#[test]
fn a_server_that_cuts_every_connection_is_asked_to_go_on() {
    let files = files();
    let server = Server::new(move |request, stream| {
        let (head, body) = answer(request, &files[&request.path], true);
        write(stream, &head, &body[..body.len().min(30_000)]);
    });
    let folder = Folder::new();
    fetched(folder.path(), &[&server.address]);
    let asked = server.requests_of(&weights());
    assert_eq!(
        asked[..3],
        [None, Some(29_696), Some(59_392)],
        "each time from the end of the last whole leaf"
    );
}

#[test]
fn a_damaged_leaf_is_named_and_the_next_server_gives_the_rest() {
    let mut damaged = files();
    damaged.get_mut(&weights()).unwrap()[5_000] ^= 1;
    let (bad, good) = (Server::of(damaged), Server::of(files()));
    let folder = Folder::new();
    let says = ["weights.safetensors", &bad.address, &weights(), "leaf 4 (bytes 4096 to 5120)"];
    refused(folder.path(), &[&bad.address], &[], &says);
    assert_eq!(fs::metadata(folder.partial_weights()).unwrap().len(), 4_096);
    fetched(folder.path(), &[&bad.address, &good.address]);
    assert_eq!(good.requests_of(&weights()), [Some(4_096)]);

    // In one go as well, and what is kept is not believed: a byte of it changes on disk.
    let folder = Folder::new();
    refused(folder.path(), &[&bad.address], &[], &says);
    let mut kept = fs::read(folder.partial_weights()).unwrap();
    kept[1_030] ^= 1;
    fs::write(folder.partial_weights(), kept).unwrap();
    fetched(folder.path(), &[&good.address]);
    assert_eq!(good.requests_of(&weights()), [Some(4_096), Some(1_024)]);
}

#[test]
fn answers_that_are_not_the_file_are_explained() {
    let check = |answer: fn(&Request, &mut TcpStream), says: &[&str]| {
        let server = Server::new(answer);
        let folder = Folder::new();
        refused(
            folder.path(),
            &[&server.address],
            &[],
            &[&[&*server.address, "manifest.json"], says].concat(),
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of nothing");
    };
    check(|_, stream| not_found(stream), &["there is no such file", "is this a store"]);
    check(
        |_, stream| {
            write(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6", b"<html>");
        },
        &["web page"],
    );
    check(
        |_, stream| write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2", b"{}"),
        &["the hash of these 2 bytes"],
    );
    check(|_, stream| write(stream, "HTTP/1.1 200 OK", &[b' '; 70_000]), &["at most 65536 bytes"]);
    check(
        |_, stream| write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 90000", b" "),
        &["at most 65536 bytes"],
    );
    check(|_, stream| write(stream, "HTTP/1.1 503 Busy\r\nContent-Length: 0", b""), &["503", "later"]);
    check(|_, stream| write(stream, "SSH-2.0-server", b""), &["HTTP"]);
    check(
        |request, stream| {
            let head = format!("HTTP/1.1 302 Found\r\nLocation: /{}/\r\nContent-Length: 0", request.path);
            write(stream, &head, b"");
        },
        &["redirects more than 5 times"],
    );
}

#[test]
fn a_file_of_another_length_is_refused_before_it_is_read() {
    for change in [-1isize, 1] {
        let mut files = files();
        let file = files.get_mut(&weights()).unwrap();
        let length = file.len();
        file.resize(length.checked_add_signed(change).unwrap(), 0);
        let server = Server::of(files);
        let folder = Folder::new();
        let [actual, expected] = [length.checked_add_signed(change).unwrap(), length].map(|n| n.to_string());
        refused(folder.path(), &[&server.address], &[], &[&weights(), &actual, &expected, "manifest says"]);
    }
    // The same from a server that does not say how much will come.
    let all = files();
    let server = Server::new(move |request, stream| {
        let file = &all[&request.path];
        let more: &[u8] = if request.path == weights() { b"more" } else { b"" };
        write(stream, "HTTP/1.1 200 OK", &[file, more].concat());
    });
    refused(Folder::new().path(), &[&server.address], &[], &[&weights(), "goes on after"]);
    let all = files();
    let server = Server::new(move |request, stream| {
        let file = &all[&request.path];
        let length = if request.path == weights() { file.len() - 1 } else { file.len() };
        write(stream, "HTTP/1.1 200 OK", &file[..length]);
    });
    refused(
        Folder::new().path(),
        &[&server.address],
        &[],
        &[&weights(), "broke off after", "nothing more came"],
    );
}

#[test]
fn servers_that_hang_or_trickle_are_given_up() {
    let check = |says: &str, answer: fn(&[u8], &mut TcpStream)| {
        let files = files();
        let server = Server::new(move |request, stream| {
            let file = &files[&request.path];
            if request.path == weights() { answer(file, stream) } else { send(stream, request, file, true) }
        });
        refused(Folder::new().path(), &[&server.address], &["--timeout", "1"], &[&weights(), says]);
    };
    check("nothing came for 1 s", |_, _| thread::sleep(Duration::from_secs(20)));
    check("nothing came for 1 s", |file, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len());
        let _ = stream.write_all(&file[..500]);
        thread::sleep(Duration::from_secs(20));
    });
    check("bytes came in 1 s", |file, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len());
        for byte in file.chunks(1).take(100) {
            let _ = stream.write_all(byte);
            thread::sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn a_server_that_is_not_there_is_named_and_the_next_one_asked() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let folder = Folder::new();
    refused(
        folder.path(),
        &[&gone, "/nowhere"],
        &[],
        &[&gone, "refused", "/nowhere/manifests/", "no such file"],
    );
    let server = Server::of(files());
    let moved = Server::new({
        let address = server.address;
        move |request, stream| {
            let head =
                format!("HTTP/1.1 301 Moved\r\nLocation: {address}/{}\r\nContent-Length: 0", request.path);
            write(stream, &head, b"");
        }
    });
    let output = fetch(folder.path(), &[&gone, &moved.address], &["--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["failures"][0].as_str().unwrap().contains(&gone), "{value}");
    exact(folder.path());
}

#[test]
fn sources_that_are_none_are_explained() {
    let folder = Folder::new();
    refused(folder.path(), &["ftp://host/models"], &[], &["--from ftp://host/models", "http://", "folder"]);
    refused(folder.path(), &["http://host/?key=1"], &[], &["--from http://host/?key=1", "without ?"]);
    let output = fetch(folder.path(), &["/nowhere"], &["--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["error"].as_str().unwrap().contains("/nowhere/manifests/"), "{value}");
}

#[test]
fn fetches_at_once_and_fetches_that_are_killed_leave_one_exact_bundle() {
    let all = files();
    let server = Server::new(move |request, stream| {
        thread::sleep(Duration::from_millis(100));
        send(stream, request, &all[&request.path], true);
    });
    let folder = Folder::new();
    let into = folder.path().to_str().unwrap().to_owned();
    let start = || {
        let arguments = ["model", "fetch", &id(), "--from", &server.address, "--into", &into];
        command(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut killed = start();
    while server.requests.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!folder.path().join(id()).exists());
    let children: Vec<_> = (0..3).map(|_| start()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    exact(folder.path());
    assert_eq!(server.requests_of(&weights()).len(), 1, "one did it for all");
}
