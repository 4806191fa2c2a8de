//! The bucket, on real S3 servers: versitygw with TLS, and s3s.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::time::Instant;

use archive::Store;
use archive::store::{PART, Put};
use common::location::{Key, Location};
use common::mysql::Password;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use testkit::S3;
use tokio::net::TcpListener;

fn location(server: &S3) -> Location {
    serde_json::from_str(&server.location("")).unwrap()
}

/// A server of s3s on a folder of its own, for as long as the test runs.
struct Other {
    _home: TempDir,
    location: Location,
}

impl Other {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(S3::BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(home.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(S3::KEY_ID, S3::SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service.clone()));
            }
        });
        let key = Key { id: S3::KEY_ID.to_owned(), secret: Password::new(S3::SECRET), token: None };
        let location = Location {
            bucket: S3::BUCKET.to_owned(),
            prefix: String::new(),
            region: "us-east-1".to_owned(),
            endpoint,
            force_path_style: true,
            key,
            authority: None,
        };
        Self { _home: home, location }
    }
}

/// Runs a test on both.
async fn on_both(test: impl AsyncFn(Store)) {
    let (one, other) = (S3::start(), Other::start().await);
    for location in [&location(&one), &other.location] {
        test(Store::new(location).unwrap()).await;
    }
}

#[tokio::test]
async fn an_object_is_put_once_and_never_overwritten() {
    on_both(async |store| {
        assert_eq!(store.get("a/b").await.unwrap(), None);
        assert_eq!(store.put_new("a/b", "first").await.unwrap(), Put::Stored);
        assert_eq!(store.put_new("a/b", "second").await.unwrap(), Put::Exists);
        assert_eq!(store.get("a/b").await.unwrap().unwrap(), "first");
        assert_eq!(store.get_front("a/b", 2).await.unwrap().unwrap(), "fi");
        assert_eq!(store.get_front("a/b", 99).await.unwrap().unwrap(), "first");
        store.delete("a/b").await.unwrap();
        store.delete("a/b").await.unwrap();
        assert_eq!(store.get("a/b").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn large_objects_go_in_parts_and_are_not_overwritten_either() {
    on_both(async |store| {
        for length in [PART - 1, PART, PART + 1, 2 * PART] {
            let key = format!("large/{length}");
            let content = move || std::io::repeat(7).take(length as u64);
            assert_eq!(store.put_new_from(&key, content()).await.unwrap(), Put::Stored, "{length}");
            assert_eq!(store.put_new_from(&key, content()).await.unwrap(), Put::Exists, "{length}");
            let got = store.get(&key).await.unwrap().unwrap();
            assert_eq!((got.len(), got.iter().all(|byte| *byte == 7)), (length, true));
        }
        let broken = std::io::repeat(7).take(PART as u64).chain(Broken);
        let error = store.put_new_from("large/broken", broken).await.unwrap_err();
        assert!(error.to_string().contains("large/broken"), "{error}");
        assert_eq!(store.get("large/broken").await.unwrap(), None);
    })
    .await;
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("broken"))
    }
}

#[tokio::test]
async fn more_than_a_page_is_listed_in_order() {
    on_both(async |store| {
        for number in 0..1003 {
            store.put_new(&format!("p/{}/{number:05}", number % 3), "x").await.unwrap();
        }
        store.put_new("q", "x").await.unwrap();
        let listed = store.list("p/").await.unwrap();
        assert_eq!(listed.len(), 1003);
        assert!(listed.is_sorted_by(|one, other| one.key < other.key));
        assert_eq!(listed.first().map(|object| object.size), Some(1));
        assert_eq!(store.folders("p/").await.unwrap(), ["0", "1", "2"]);
    })
    .await;
}

#[tokio::test]
async fn errors_name_the_key_and_the_reason_and_no_secret() {
    let mut server = S3::start();
    let right = location(&server);
    let wrong = |location: Location| async move {
        let began = Instant::now();
        let error = Store::new(&location).unwrap().put_new("some/key", "x").await.unwrap_err();
        assert!(began.elapsed() < archive::store::DEADLINE, "{:?}", began.elapsed());
        let text = format!("{error} {error:?}");
        assert!(text.contains("some/key"), "{text}");
        assert!(!text.contains(S3::SECRET) && !text.contains("wrong-secret"), "{text}");
        error.to_string()
    };
    let key = Key { secret: Password::new("wrong-secret"), ..right.key.clone() };
    assert!(wrong(Location { key, ..right.clone() }).await.contains("SignatureDoesNotMatch"));
    assert!(wrong(Location { bucket: "nobody".to_owned(), ..right.clone() }).await.contains("NoSuchBucket"));
    let stranger = S3::start();
    let authority = Some(stranger.authority().to_owned());
    let text = wrong(Location { authority, ..right.clone() }).await;
    assert!(text.contains("certificate"), "{text}");
    server.kill();
    assert!(wrong(right.clone()).await.contains("refused"));
    server.run();
    assert_eq!(Store::new(&right).unwrap().put_new("some/key", "x").await.unwrap(), Put::Stored);
}
