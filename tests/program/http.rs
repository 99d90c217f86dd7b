//! Files of an HTTP server, each by its URL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use s3s::Body;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::sql;

/// Gives the files of a folder, or ranges of them, as web servers do; listings it has none.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&requests);
        runtime.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let counted = Arc::clone(&counted);
                let one = service_fn(move |request: Request<Incoming>| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    async move { answer(&request) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), one));
            }
        });
        Self { address, requests, _runtime: runtime }
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

fn answer(request: &Request<Incoming>) -> hyper::http::Result<Response<Body>> {
    let Ok(bytes) = std::fs::read(format!("testdata/nycflights{}", request.uri().path())) else {
        return Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty());
    };
    let range = request.headers().get(RANGE).map(|range| {
        let (start, end) = range.to_str().unwrap().trim_start_matches("bytes=").split_once('-').unwrap();
        let end = end.parse::<usize>().map_or(bytes.len(), |last| bytes.len().min(last + 1));
        start.parse::<usize>().unwrap()..end
    });
    let answer = Response::builder().header(ETAG, "\"one\"").header(ACCEPT_RANGES, "bytes");
    match (request.method(), range) {
        (&Method::HEAD, _) => answer.header(CONTENT_LENGTH, bytes.len()).body(Body::empty()),
        (_, None) => answer.body(bytes.into()),
        (_, Some(range)) => {
            let told = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
            let answer = answer.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, told);
            answer.body(bytes[range].to_vec().into())
        }
    }
}

fn rows(sql_text: &str) -> Vec<u8> {
    let output = sql(sql_text).args(["--quiet", "--format", "csv", "--partitions", "1"]).assert().success();
    output.get_output().stdout.clone()
}

#[test]
fn files_are_read_by_their_urls() {
    let server = Server::start();
    let query = |files: &str| {
        format!(
            "CREATE STREAM f (WATERMARK FOR scheduled) LOCATION '{files}'; SELECT origin, window_start, count(*) FROM f
             GROUP BY origin WINDOW TUMBLING (SIZE 1 DAY) ORDER BY 1, 2"
        )
    };
    let local = |name: &str| format!("testdata/nycflights/{name}");
    for names in [&["flights-LGA.parquet", "flights-JFK.parquet"][..], &["flights-LGA-january.csv"]] {
        let here = names.iter().map(|name| local(name)).collect::<Vec<_>>().join(", ");
        let there = names.iter().map(|name| server.url(name)).collect::<Vec<_>>().join(", ");
        assert!(rows(&query(&there)) == rows(&query(&here)), "{names:?}");
    }
    assert!(server.requests.load(Ordering::Relaxed) > 6);
}

#[test]
fn what_is_not_there_or_no_file_is_told() {
    let server = Server::start();
    let refused = |name: &str, told: &str| {
        let place = server.url(name);
        sql(&format!("SELECT * FROM '{place}'")).assert().failure().stderr(contains(told).and(contains(&place)));
    };
    refused("no-such.parquet", "no file at");
    refused("flights-*.parquet", "is no single file");
}
