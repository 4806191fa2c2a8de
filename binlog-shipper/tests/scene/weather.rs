//! Bad weather before a real S3 server: answers that are errors though nothing was done, though all was done, and none at all.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use common::tls::{server_name, trusting};
use testkit::S3;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// `503 SlowDown`, and nothing is done.
    Refused,
    /// It is done, and answered with `500`.
    Misreported,
    /// It is done, and the connection ends without an answer.
    Lost,
    /// As it should be.
    Done,
}

fn fate(random: &mut StdRng) -> Fate {
    match random.random_range(0..100) {
        0..18 => Fate::Refused,
        18..24 => Fate::Misreported,
        24..30 => Fate::Lost,
        _ => Fate::Done,
    }
}

/// Thirty of a hundred requests go wrong. The location of the bucket behind it; it ends with its runtime.
pub async fn bad_weather(s3: &S3, seed: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let location = s3.location("prod").replace(&s3.endpoint(), &format!("http://{address}"));
    let behind: SocketAddr = s3.endpoint().trim_start_matches("https://").parse().unwrap();
    let tls = TlsConnector::from(Arc::new(trusting(s3.authority()).unwrap()));
    let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, random) = (tls.clone(), Arc::clone(&random));
            let service = service_fn(move |request| {
                let (tls, fate) = (tls.clone(), fate(&mut random.lock().unwrap()));
                async move { answer(behind, tls, request, fate).await }
            });
            tokio::spawn(async move {
                let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    location
}

async fn answer(
    behind: SocketAddr,
    tls: TlsConnector,
    request: Request<Incoming>,
    fate: Fate,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let error = |status, code: &str| {
        let text = format!("<Error><Code>{code}</Code><Message>bad weather</Message></Error>");
        Response::builder().status(status).body(Full::from(text)).unwrap()
    };
    if matches!(fate, Fate::Refused) {
        return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"));
    }
    let (head, body) = request.into_parts();
    // A client that hung up in the middle gets nothing.
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let done = forward(behind, tls, Request::from_parts(head, Full::from(body))).await;
    match fate {
        Fate::Misreported => Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        Fate::Lost => Err(std::io::Error::other("bad weather")),
        Fate::Refused | Fate::Done => done.map_err(std::io::Error::other),
    }
}

/// As it is: the signature holds for the name that the client knows.
async fn forward(
    behind: SocketAddr,
    tls: TlsConnector,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(behind).await?;
    let stream = tls.connect(server_name(&behind.ip().to_string())?, stream).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, Full::from(body.collect().await?.to_bytes())))
}
