//! As much of an API server as the plugin asks: objects, watches of them, and ports of pods.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Where kinds are served, of the one namespace.
const PLACES: [(&str, &str); 3] = [
    ("MySQLCluster", "/apis/pelorus.dev/v1alpha1/namespaces/team-a/mysqlclusters"),
    ("MySQLDump", "/apis/pelorus.dev/v1alpha1/namespaces/team-a/mysqldumps"),
    ("Secret", "/api/v1/namespaces/team-a/secrets"),
];

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// A running server.
#[derive(Clone)]
pub struct Api(Arc<State>);

struct State {
    address: SocketAddr,
    /// By their paths.
    objects: Mutex<BTreeMap<String, Value>>,
    changes: broadcast::Sender<(String, Value)>,
    /// What a port of any pod leads to.
    pods: Mutex<Option<SocketAddr>>,
}

fn path(kind: &str, name: &str) -> String {
    let (_, place) = PLACES.iter().find(|(served, _)| *served == kind).expect("a kind that is served");
    format!("{place}/{name}")
}

impl Api {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            address: listener.local_addr().unwrap(),
            objects: Mutex::default(),
            changes: broadcast::channel(100).0,
            pods: Mutex::default(),
        };
        let api = Self(Arc::new(state));
        let served = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = served.clone();
                let answer = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer).with_upgrades());
            }
        });
        api
    }

    /// For `--kubeconfig`, with another namespace than that of the tests, and a context in which nobody answers.
    pub fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.0.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}},
                         {"name": "elsewhere", "cluster": {"server": "http://127.0.0.1:1"}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}},
                         {"name": "elsewhere", "context": {"cluster": "elsewhere", "user": "test"}}],
        })
        .to_string()
    }

    /// An object is there, or is another now.
    pub fn put(&self, kind: &str, name: &str, fields: Value) {
        let mut object = self.get(kind, name).unwrap_or_else(|| {
            let version = if kind == "Secret" { "v1" } else { "pelorus.dev/v1alpha1" };
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "team-a", "uid": format!("uid-of-{name}"), "generation": 1, "resourceVersion": "1"}})
        });
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.0.objects.lock().unwrap().insert(path(kind, name), object.clone());
        self.0.changes.send((path(kind, name), object)).ok();
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.0.objects.lock().unwrap().get(&path(kind, name)).cloned()
    }

    pub fn count(&self, kind: &str) -> usize {
        let place = path(kind, "");
        self.0.objects.lock().unwrap().keys().filter(|path| path.starts_with(&place)).count()
    }

    /// When an object of this kind is made; its name.
    pub async fn made(&self, kind: &str) -> String {
        let (place, mut changes) = (path(kind, ""), self.0.changes.subscribe());
        loop {
            let (path, _) = changes.recv().await.unwrap();
            if let Some(name) = path.strip_prefix(&place) {
                return name.to_owned();
            }
        }
    }

    /// Ports of pods lead there.
    pub fn pods(&self, to: SocketAddr) {
        *self.0.pods.lock().unwrap() = Some(to);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        if path.ends_with("/portforward") {
            return self.forward(request);
        }
        let kind = PLACES.iter().find(|(_, place)| *place == path);
        match (request.method().clone(), kind) {
            (Method::POST, Some((kind, _))) => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let object: Value = serde_json::from_slice(&body).unwrap();
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap().to_owned();
                if self.get(kind, &name).is_some() {
                    return refused(StatusCode::CONFLICT, "AlreadyExists");
                }
                self.put(kind, &name, json!({"spec": object["spec"]}));
                said(StatusCode::CREATED, &self.get(kind, &name).unwrap())
            }
            (_, Some(_)) => {
                let wanted = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
                let wanted = wanted.map(|name| format!("{path}/{name}"));
                let is_wanted =
                    move |of: &str| wanted.as_ref().map_or(of.starts_with(&path), |wanted| of == wanted.as_str());
                // Subscribed before the list is read: a watch tells whatever changes after it.
                let changes = self.0.changes.subscribe();
                let objects = self.0.objects.lock().unwrap().clone();
                let there: Vec<Value> =
                    objects.into_iter().filter(|(path, _)| is_wanted(path)).map(|(_, object)| object).collect();
                if !query.contains("watch=true") {
                    return said(StatusCode::OK, &json!({"metadata": {"resourceVersion": "1"}, "items": there}));
                }
                let lines = |object: Value| {
                    let line = json!({"type": "MODIFIED", "object": object}).to_string() + "\n";
                    Ok(Frame::data(Bytes::from(line)))
                };
                let later = stream::unfold((changes, is_wanted), |(mut changes, is_wanted)| async move {
                    loop {
                        let (path, object) = changes.recv().await.ok()?;
                        if is_wanted(&path) {
                            return Some((object, (changes, is_wanted)));
                        }
                    }
                });
                Response::new(StreamBody::new(stream::iter(there).chain(later).map(lines).boxed()))
            }
            (_, None) => match self.0.objects.lock().unwrap().get(&path) {
                Some(object) => said(StatusCode::OK, object),
                None => refused(StatusCode::NOT_FOUND, "NotFound"),
            },
        }
    }

    /// `v4.channel.k8s.io`: a byte says which channel, data or error, and each begins with the port.
    fn forward(&self, mut request: Request<Incoming>) -> Response<Body> {
        let key = request.headers()[SEC_WEBSOCKET_KEY].as_bytes().to_vec();
        let to = *self.0.pods.lock().unwrap();
        let Some(to) = to else { return refused(StatusCode::FORBIDDEN, "Forbidden") };
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let upgraded = TokioIo::new(upgraded.await.unwrap());
            let (mut write, mut read) = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await.split();
            let [low, high] = 3306_u16.to_le_bytes();
            for channel in [0, 1] {
                write.send(Message::binary(vec![channel, low, high])).await.unwrap();
            }
            let pod = match TcpStream::connect(to).await {
                Ok(pod) => pod,
                Err(error) => {
                    let error = [&[1], error.to_string().as_bytes()].concat();
                    write.send(Message::binary(error)).await.unwrap();
                    return write.close().await.unwrap();
                }
            };
            let (mut from, mut into) = pod.into_split();
            tokio::spawn(async move {
                while let Some(Ok(message)) = read.next().await {
                    if into.write_all(message.into_data().get(1..).unwrap_or_default()).await.is_err() {
                        break;
                    }
                }
            });
            let mut buffer = vec![0; 32 << 10];
            loop {
                let count = from.read(&mut buffer).await.unwrap_or(0);
                let message = [&[0], &buffer[..count]].concat();
                if count == 0 || write.send(Message::binary(message)).await.is_err() {
                    return write.close().await.unwrap_or_default();
                }
            }
        });
        let mut response = refused(StatusCode::SWITCHING_PROTOCOLS, "");
        *response.body_mut() = StreamBody::new(stream::empty().boxed());
        let headers = response.headers_mut();
        headers.insert(CONNECTION, "Upgrade".parse().unwrap());
        headers.insert(UPGRADE, "websocket".parse().unwrap());
        headers.insert(SEC_WEBSOCKET_ACCEPT, derive_accept_key(&key).parse().unwrap());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io".parse().unwrap());
        response
    }
}

fn said(code: StatusCode, object: &Value) -> Response<Body> {
    let text = Bytes::from(object.to_string());
    let mut response = Response::new(StreamBody::new(stream::iter([Ok(Frame::data(text))]).boxed()));
    *response.status_mut() = code;
    response
}

fn refused(code: StatusCode, reason: &str) -> Response<Body> {
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": format!("the server says {reason}")});
    said(code, &status)
}
