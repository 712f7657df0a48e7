//! A proxy in front of a store. It forwards every request, except those that it has a fault for. It
//! knows how TCP and HTTP fail, and which operation of the store a request is; it knows nothing of
//! presignd.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    HeadBucket,
    HeadObject,
    GetObject,
    CreateMultipartUpload,
    ListParts,
    CompleteMultipartUpload,
    AbortMultipartUpload,
}

impl Operation {
    pub(super) const ALL: [Self; 7] = [
        Self::HeadBucket,
        Self::HeadObject,
        Self::GetObject,
        Self::CreateMultipartUpload,
        Self::ListParts,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
    ];

    fn from_head(head: &str) -> Option<Self> {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_bucket = !path.trim_matches('/').contains('/');
        let operation = match (method, query.contains("uploadId=")) {
            ("HEAD", _) if is_bucket => Self::HeadBucket,
            ("HEAD", _) => Self::HeadObject,
            ("GET", false) => Self::GetObject,
            ("GET", true) => Self::ListParts,
            ("POST", false) => Self::CreateMultipartUpload,
            ("POST", true) => Self::CompleteMultipartUpload,
            ("DELETE", true) => Self::AbortMultipartUpload,
            // Only clients send anything else.
            _ => return None,
        };
        Some(operation)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody listens.
    Closed,
    /// A connection attempt gets no answer.
    Unreachable,
    /// The request is read, and nothing else happens.
    Silent,
    /// The store does it, and its answer does not arrive.
    Late,
    /// The store does it, and half of its answer does not arrive.
    SilentWithin,
    /// The connection is reset before the store gets the request.
    Reset,
    /// The store does it, and the connection is reset instead of an answer.
    AnswerLost,
    /// The store does it, and the answer is shorter than it says.
    CutShort,
    /// The store does nothing, and this is the answer.
    Answers(u16, &'static str),
}

impl Fault {
    /// Whether the store does what the request says.
    pub(super) fn reaches_the_store(self) -> bool {
        matches!(
            self,
            Self::Late | Self::SilentWithin | Self::AnswerLost | Self::CutShort
        )
    }

    /// Whether only a timeout ends the request.
    pub(super) fn hangs(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::Silent | Self::Late | Self::SilentWithin
        )
    }
}

pub(super) struct Proxy {
    pub(super) addr: SocketAddr,
    door: Mutex<Option<Door>>,
    inside: Arc<Inside>,
}

/// Keeps connections out until the fault is lifted.
enum Door {
    Closed(TcpSocket),
    /// The listener's queue is full, since nobody accepts.
    Blocked {
        listener: TcpListener,
        _queue: Vec<TcpStream>,
    },
}

struct Inside {
    store: SocketAddr,
    /// The fault of requests for these operations.
    fault: Mutex<Option<(Vec<Operation>, Fault)>>,
    asked: AtomicU32,
}

impl Proxy {
    pub(super) async fn start(store: SocketAddr, operations: &[Operation], fault: Fault) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // The port can then be listened on right after the connections of a queue were closed.
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let inside = Arc::new(Inside {
            store,
            fault: Mutex::new(Some((operations.to_vec(), fault))),
            asked: AtomicU32::new(0),
        });
        let door = match fault {
            Fault::Closed => Some(Door::Closed(socket)),
            Fault::Unreachable => {
                let listener = socket.listen(1).unwrap();
                let mut queue = Vec::new();
                let patience = std::time::Duration::from_millis(200);
                while let Ok(stream) =
                    tokio::time::timeout(patience, TcpStream::connect(addr)).await
                {
                    queue.push(stream.unwrap());
                }
                Some(Door::Blocked {
                    listener,
                    _queue: queue,
                })
            }
            _ => {
                tokio::spawn(accept(socket.listen(128).unwrap(), Arc::clone(&inside)));
                None
            }
        };
        Self {
            addr,
            door: Mutex::new(door),
            inside,
        }
    }

    /// How many requests met the fault.
    pub(super) fn asked(&self) -> u32 {
        self.inside.asked.load(Ordering::SeqCst)
    }

    pub(super) fn lift_fault(&self) {
        *self.inside.fault.lock().unwrap() = None;
        let listener = match self.door.lock().unwrap().take() {
            Some(Door::Closed(socket)) => socket.listen(128).unwrap(),
            Some(Door::Blocked { listener, .. }) => listener,
            None => return,
        };
        tokio::spawn(accept(listener, Arc::clone(&self.inside)));
    }
}

async fn accept(listener: TcpListener, inside: Arc<Inside>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let inside = Arc::clone(&inside);
        // A client may hang up.
        tokio::spawn(async move { inside.handle(client).await });
    }
}

impl Inside {
    /// Handles one request and closes the connection.
    async fn handle(&self, mut client: TcpStream) -> io::Result<()> {
        let request = read_request(&mut client).await?;
        let head = String::from_utf8_lossy(&request);
        let operation = Operation::from_head(&head);
        let fault = self.fault.lock().unwrap().clone();
        let fault = fault
            .filter(|(operations, _)| operation.is_some_and(|this| operations.contains(&this)));
        let Some((_, fault)) = fault else {
            return client.write_all(&self.ask_store(&request).await?).await;
        };
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = match fault {
            Fault::Answers(status, body) => {
                let body = if head.starts_with("HEAD") { "" } else { body };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} Whatever\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                return client.write_all(answer.as_bytes()).await;
            }
            fault if fault.reaches_the_store() => self.ask_store(&request).await?,
            _ => Vec::new(),
        };
        if matches!(fault, Fault::SilentWithin | Fault::CutShort) {
            client.write_all(&answer[..middle(&answer)]).await?;
        }
        if fault.hangs() {
            std::future::pending::<()>().await;
        }
        if fault != Fault::CutShort {
            client.set_zero_linger()?;
        }
        Ok(())
    }

    /// Forwards the request and reads the whole answer of the store.
    async fn ask_store(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut store = TcpStream::connect(self.store).await?;
        let (line, rest) = request.split_at(find(request, b"\r\n").unwrap() + 2);
        for bytes in [line, b"connection: close\r\n", rest] {
            store.write_all(bytes).await?;
        }
        let mut answer = Vec::new();
        store.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// The middle of the body, or of the head if there is no body.
fn middle(answer: &[u8]) -> usize {
    let body = find(answer, b"\r\n\r\n").unwrap() + 4;
    match answer.len() - body {
        0 => body / 2,
        length => body + length / 2,
    }
}

async fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if client.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = find(&request, b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length = head
            .split_once("content-length: ")
            .map_or(0, |(_, length)| {
                length.lines().next().unwrap().parse().unwrap()
            });
        if request.len() >= end + 4 + length {
            return Ok(request);
        }
    }
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes
        .windows(sought.len())
        .position(|window| window == sought)
}
