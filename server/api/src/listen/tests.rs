use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as Client};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use axum::Extension;
use axum::body::Bytes;
use axum::routing::{get, post};
use futures::stream;
use quern_server::settings::Settings;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::peer::Peer;
use super::sweep::Limits;
use super::*;
use crate::error::Error;

/// A server in front of a few routes; its limits are as short as the sweep can tell.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<()>>,
}

impl Server {
    async fn start(router: Router, change: impl FnOnce(&mut Connections)) -> Server {
        let settings = Settings::load_from(Path::new("."), |_| None, &[]).unwrap();
        let mut connections = Connections::of(&settings);
        change(&mut connections);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = Box::pin(async {
            let _ = stopped.await;
        });
        let bounds = (Arc::new(connections), Budget::new(1 << 20));
        let routers = Routers { listen: router.clone(), admin: router.clone(), own: router };
        let ended = tokio::spawn(run(routers, Doors::of(listener, None), bounds, shutdown));
        Server { address, stop, ended }
    }

    /// A connection on which `text` was sent.
    fn sent(&self, text: &str) -> Client {
        let mut client = Client::connect(self.address).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        client
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

/// What is read until the server closes the connection, which is no error however it does.
fn rest(client: &mut Client) -> String {
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// What is closed reads as its end, or as a reset.
fn is_open(client: &mut Client) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = client.read(&mut [0; 1_024]);
    read.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |bytes| bytes > 0)
}

/// The head of a reply.
fn head(client: &mut Client) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: quern\r\n\r\n";
const CLOSING: &str = "GET / HTTP/1.1\r\nhost: quern\r\nconnection: close\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" })).route("/read", post(read))
}

async fn read(body: Body) -> String {
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => format!("{} bytes", bytes.len()),
        Err(error) => Error::invalid(error.to_string()).said(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_end_before_the_server_does() {
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (at, on) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = get(|| async move {
        at.add_permits(1);
        on.acquire().await.unwrap().forget();
        "done"
    });
    let server = Server::start(Router::new().route("/", slow), |_| {}).await;
    let mut client = server.sent(GET);
    begun.acquire().await.unwrap().forget();
    let stopping = tokio::spawn(server.stop());
    go.add_permits(1);
    let reply = tokio::task::spawn_blocking(move || rest(&mut client)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.ends_with("done"), "{reply}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_by_an_address_or_by_a_user() {
    let folder = tempfile::tempdir().unwrap();
    let said = async |Extension(peer): Extension<Arc<Peer>>| format!("{peer:?}");
    let router = Router::new().route("/", get(said));
    let routers = Routers { listen: router.clone(), admin: router.clone(), own: router };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let doors = Doors::of(listener, None).in_folder(folder.path());
    let settings = Settings::load_from(Path::new("."), |_| None, &[]).unwrap();
    let bounds = (Connections::new(&settings), Budget::new(1 << 20));
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = Box::pin(async {
        let _ = stopped.await;
    });
    let ended = tokio::spawn(run(routers, doors, bounds, shutdown));
    let socket = folder.path().join(quern_server::SOCKET_FILE);
    let user = std::fs::metadata(&socket).unwrap().uid();
    let replies = tokio::task::spawn_blocking(move || {
        let (mut network, mut own) =
            (Client::connect(address).unwrap(), UnixStream::connect(socket).unwrap());
        network.write_all(CLOSING.as_bytes()).unwrap();
        own.write_all(CLOSING.as_bytes()).unwrap();
        let mut said = String::new();
        own.read_to_string(&mut said).unwrap();
        (rest(&mut network), said)
    });
    let (network, own) = replies.await.unwrap();
    let told = |peer: Peer| format!("{peer:?}");
    let address = Some([127, 0, 0, 1].into());
    assert!(network.ends_with(&told(Peer { address, ..Peer::default() })), "{network}");
    assert!(own.ends_with(&told(Peer { local: Some(user), ..Peer::default() })), "{own}");
    stop.send(()).unwrap();
    ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_half_heads_and_slow_bodies_end_and_others_are_served() {
    let server = Server::start(hello(), |connections| {
        connections.limits.head = Duration::from_millis(100);
        connections.limits.body = Duration::from_millis(300);
        connections.limits.idle = Duration::from_secs(600);
    })
    .await;
    let mut halves: Vec<Client> = ["G", "POST /read HT", "POST /read HTTP/1.1\r\nhost: q\r\nx-a: "]
        .into_iter()
        .cycle()
        .take(30)
        .map(|text| server.sent(text))
        .collect();
    let mut silent: Vec<Client> = (0..10).map(|_| server.sent("")).collect();
    let mut slow =
        server.sent("POST /read HTTP/1.1\r\nhost: q\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{");
    let mut chunked = server.sent(
        "POST /read HTTP/1.1\r\nhost: q\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    );
    let ended = tokio::task::spawn_blocking(move || {
        let replies: Vec<String> = halves.iter_mut().map(rest).collect();
        assert!(replies.iter().all(String::is_empty), "{replies:?}");
        for client in [&mut slow, &mut chunked] {
            let reply = rest(client);
            assert!(reply.contains("did not come in time") && reply.ends_with("1 bytes came"), "{reply}");
        }
        // Who has sent nothing may still ask.
        silent.iter_mut().for_each(|client| client.write_all(CLOSING.as_bytes()).unwrap());
        silent.iter_mut().map(rest).filter(|reply| reply.ends_with("hello")).count()
    });
    assert_eq!(ended.await.unwrap(), 10);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_old_connections_are_closed_between_requests() {
    for change in
        [(|limits: &mut Limits| limits.idle = Duration::from_millis(100)) as fn(&mut Limits), |limits| {
            limits.age = Duration::from_millis(100)
        }]
    {
        let server = Server::start(hello(), |connections| change(&mut connections.limits)).await;
        let (mut asked, mut silent) = (server.sent(GET), server.sent(""));
        let replies =
            tokio::task::spawn_blocking(move || [rest(&mut asked), rest(&mut silent)]).await.unwrap();
        assert!(replies[0].ends_with("hello"), "{replies:?}");
        assert_eq!(replies[1], "");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_a_crowd_leaves_room() {
    for crowd in ["", "POST /read HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let server = Server::start(hello(), |connections| connections.per_address_max = 8).await;
        let asking = "POST /read HTTP/1.1\r\nhost: q\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
        let mut at_work = server.sent(asking);
        // Its body is waited for.
        let (begun, mut at_work) =
            tokio::task::spawn_blocking(move || (head(&mut at_work), at_work)).await.unwrap();
        assert!(begun.starts_with("HTTP/1.1 100"), "{begun}");
        let mut held: Vec<Client> = Vec::new();
        for _ in 0..100 {
            held.push(server.sent(crowd));
        }
        let mut asks = server.sent(CLOSING);
        let replies = tokio::task::spawn_blocking(move || {
            at_work.write_all(b"123456789").unwrap();
            let replies = (rest(&mut asks), head(&mut at_work));
            // A place is kept by who asks something; of the others, all but a few made room.
            while held.iter_mut().map(is_open).filter(|open| *open).count() > 8 {
                std::thread::yield_now();
            }
            replies
        });
        let (reply, at_work) = replies.await.unwrap();
        assert!(reply.ends_with("hello"), "{crowd:?}: {reply}");
        assert!(at_work.starts_with("HTTP/1.1 200"), "{crowd:?}: {at_work}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_a_reader_that_does_not_read_is_let_go() {
    /// Counts the bodies that were made and not yet dropped.
    struct Held(Arc<Semaphore>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.add_permits(1);
        }
    }

    let dropped = Arc::new(Semaphore::new(0));
    let of_body = Arc::clone(&dropped);
    let endless = get(|| async move {
        let held = Held(of_body);
        Body::from_stream(stream::repeat_with(move || {
            let _ = &held;
            Ok::<_, std::convert::Infallible>(Bytes::from(vec![7; 1 << 16]))
        }))
    });
    let server = Server::start(Router::new().route("/", endless), |connections| {
        connections.limits.stream = Duration::from_millis(200);
    })
    .await;
    let clients: Vec<Client> = (0..5).map(|_| server.sent(GET)).collect();
    dropped.acquire_many(5).await.unwrap().forget();
    drop(clients);
    server.stop().await;
}
