//! A server that speaks S3, on this machine: what a program meets that is given its address and keys.
//!
//! It keeps objects as files, and does not do all that S3 does at once: it looks whether an object is there, and then writes.
//! So requests that write have their turns, and are carried out even where whoever has sent them is not there any more.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as ObjectPath;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

pub const BUCKET: &str = "bucket";
pub const KEY: &str = "a-key-of-tests";
/// What is to be in no output.
pub const SECRET: &str = "what-nobody-may-see";

pub struct Server {
    folder: TempDir,
    address: SocketAddr,
    turn: Arc<Mutex<()>>,
    runtime: Runtime,
}

impl Server {
    /// Starts one that has a bucket, and nothing in it.
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let (address, turn) = (listener.local_addr().unwrap(), Arc::default());
        runtime.spawn(serve(listener, builder.build(), Arc::clone(&turn)));
        Self { folder, address, turn, runtime }
    }

    /// Tells a program where it is, and its keys.
    pub fn known_to<'a>(&self, command: &'a mut Process) -> &'a mut Process {
        known_to(command, self.address, SECRET)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts an object.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let builder = AmazonS3Builder::new().with_endpoint(format!("http://{}", self.address)).with_allow_http(true);
        let builder = builder.with_access_key_id(KEY).with_secret_access_key(SECRET).with_bucket_name(BUCKET);
        let store = builder.build().unwrap();
        self.runtime.block_on(store.put(&ObjectPath::from(name), bytes.into())).unwrap();
    }

    /// The objects of a folder and of those in it, by their names from there on.
    pub fn objects(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let _turn = self.runtime.block_on(self.turn.lock());
        let (root, mut found) = (self.folder.path().join(BUCKET).join(folder), vec![]);
        walk(&root, &root, &mut found);
        found.sort();
        found
    }
}

/// Tells a program of a server of this address.
pub fn known_to<'a>(command: &'a mut Process, address: SocketAddr, secret: &str) -> &'a mut Process {
    command.env("AWS_ENDPOINT", format!("http://{address}")).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", secret).env("AWS_REGION", "us-east-1")
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(root, &path, found),
            false => {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, turn: Arc<Mutex<()>>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(socket, service.clone(), Arc::clone(&turn)));
    }
}

/// What S3 answers where the server that is used here would make the bucket.
fn no_such_bucket() -> Result<Response<Body>, HttpError> {
    let told = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";
    Response::builder()
        .status(StatusCode::NOT_FOUND)
        .body(told.to_string().into())
        .map_err(|error| HttpError::new(error.into()))
}

async fn answer(socket: TcpStream, service: S3Service, turn: Arc<Mutex<()>>) {
    let one = service_fn(move |request: Request<Incoming>| {
        let (service, turn) = (service.clone(), Arc::clone(&turn));
        let is_known = request.uri().path().strip_prefix('/').is_some_and(|path| path.starts_with(BUCKET));
        let done = tokio::spawn(async move {
            if !is_known {
                return no_such_bucket();
            }
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            let _turn = if reads { None } else { Some(turn.lock_owned().await) };
            service.call(request.map(Body::from)).await
        });
        async move { done.await.unwrap() }
    });
    // Whoever has gone does not want an answer.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), one).await;
}
