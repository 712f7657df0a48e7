//! The load generator of `scripts/load`: many connections that stay open, and requests at a rate that is
//! spread over all of them. It knows the service's API and nothing else of it.
//!
//! The loop is open: when a request is due does not depend on the answers, and its latency counts from
//! that moment, so a service that stalls cannot hide it. Each second and after each phase, it prints the
//! results as a line of JSON.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};

/// Time limit for opening a connection and for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
const FILES_OF_A_LIST: u64 = 10;

#[derive(Parser)]
struct Options {
    addr: SocketAddr,
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// New connections per second until all are open. Each begins with a request.
    #[arg(long, default_value_t = 1_000.0)]
    ramp: f64,
    /// Requests per second over all connections.
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// How long requests are sent at that rate.
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
    #[arg(long, value_enum, default_value_t = End::Close)]
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum End {
    /// Closes the connections when their requests are answered.
    Close,
    /// Sends a request on every connection at once, says `stop`, and waits until the service has
    /// answered them and closed the connections.
    Stop,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    LocalSet::new().run_until(run(options)).await
}

async fn run(options: Options) -> anyhow::Result<()> {
    let seen = Rc::new(RefCell::new(Seen::new()));
    tokio::task::spawn_local(report_seconds(Rc::clone(&seen)));
    let mut tasks = JoinSet::new();
    let mut random = Random(1);

    seen.borrow_mut().begin("ramp");
    let mut queues = Vec::new();
    let begin = Instant::now();
    for number in 0..options.connections {
        tokio::time::sleep_until((begin + seconds(number, options.ramp)).into()).await;
        let (queue, due) = unbounded_channel();
        send(&queue, Instant::now(), &seen, &mut random);
        queues.push(queue);
        let seen = Rc::clone(&seen);
        tasks.spawn_local(hold(options.addr, due, seen, options.end));
    }
    settled(&seen).await;
    seen.borrow_mut().end_phase();

    seen.borrow_mut().begin("soak");
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let (clock, mut moments) = unbounded_channel();
    // A thread, because tokio's timer has a resolution of milliseconds.
    thread::spawn(move || tick(options.rate, end, &clock));
    let mut in_turn = queues.iter().cycle();
    while let (Some(moment), Some(queue)) = (moments.recv().await, in_turn.next()) {
        send(queue, moment, &seen, &mut random);
    }
    settled(&seen).await;
    seen.borrow_mut().end_phase();

    if options.end == End::Stop {
        seen.borrow_mut().begin("stop");
        for queue in &queues {
            send(queue, Instant::now(), &seen, &mut random);
        }
        while !seen.borrow().is_all_sent() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!("{}", json!({"event": "stop"}));
    } else {
        seen.borrow_mut().begin("close");
    }
    drop(queues);
    while tasks.join_next().await.is_some() {}
    seen.borrow_mut().end_phase();
    Ok(())
}

/// Sends a request on a connection, if that is still open.
fn send(queue: &UnboundedSender<Request>, due: Instant, seen: &RefCell<Seen>, random: &mut Random) {
    let mut seen = seen.borrow_mut();
    let request = seen.next_request(due, random);
    if queue.send(request).is_err() {
        seen.fail(&Fault::lost());
    }
}

fn seconds(count: u64, rate: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
    Duration::from_secs_f64(count as f64 / rate)
}

/// Decides when requests are due, until `end`: at random moments, as if from many independent clients.
fn tick(rate: f64, end: Instant, clock: &UnboundedSender<Instant>) {
    let mut random = Random(2);
    let mut moment = Instant::now();
    loop {
        moment += Duration::from_secs_f64(-random.fraction().ln() / rate);
        if moment >= end {
            return;
        }
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        if clock.send(moment).is_err() {
            return;
        }
    }
}

/// Completes when no request is in progress.
async fn settled(seen: &RefCell<Seen>) {
    while !seen.borrow().is_settled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn report_seconds(seen: Rc<RefCell<Seen>>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    loop {
        second.tick().await;
        seen.borrow_mut().end_second();
    }
}

/// Runs one connection from opening to closing.
async fn hold(
    addr: SocketAddr,
    mut due: UnboundedReceiver<Request>,
    seen: Rc<RefCell<Seen>>,
    end: End,
) {
    let fault = match connect(addr).await {
        Ok(stream) => {
            seen.borrow_mut().open += 1;
            let fault = send_all(&stream, &mut due, &seen, end).await;
            seen.borrow_mut().open -= 1;
            fault
        }
        Err(fault) => Err(fault),
    };
    if let Err(fault) = fault {
        let mut seen = seen.borrow_mut();
        seen.fail(&fault);
        due.close();
        while due.try_recv().is_ok() {
            seen.fail(&Fault::lost());
        }
    }
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, Fault> {
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(addr))
        .await
        .map_err(|_| Fault::new("connect", "took too long"))?
        .map_err(|error| Fault::new("connect", error))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn send_all(
    stream: &TcpStream,
    due: &mut UnboundedReceiver<Request>,
    seen: &RefCell<Seen>,
    end: End,
) -> Result<(), Fault> {
    loop {
        let request = tokio::select! {
            biased;
            request = due.recv() => request,
            ended = ended(stream) => return Err(ended?),
        };
        let Some(request) = request else { break };
        let answer = async {
            write(stream, &request.bytes()).await?;
            seen.borrow_mut().sent += 1;
            read(stream).await
        };
        let answer = tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(|_| Fault::new("timeout", format!("no answer in {PATIENCE:?}")))??;
        seen.borrow_mut().answered(&request, &answer);
        if answer.closes {
            due.close();
        }
    }
    if end == End::Stop {
        let fault = tokio::time::timeout(PATIENCE * 2, ended(stream))
            .await
            .map_err(|_| Fault::new("timeout", "the service did not close the connection"))??;
        if fault.kind != "closed" {
            return Err(fault);
        }
    }
    Ok(())
}

/// Completes when an idle connection is closed or receives unexpected bytes.
async fn ended(stream: &TcpStream) -> Result<Fault, Fault> {
    loop {
        stream.readable().await?;
        match stream.try_read(&mut [0]) {
            Ok(0) => return Ok(Fault::new("closed", "while nothing was asked for")),
            Ok(_) => return Ok(Fault::new("body", "more bytes than were announced")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Fault> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A whole answer, with the length that its head announces.
async fn read(stream: &TcpStream) -> Result<Answer, Fault> {
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        stream.readable().await?;
        match stream.try_read(&mut bytes[filled..]) {
            Ok(0) => return Err(Fault::new("closed", "before there was a whole answer")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        if let Some(answer) = Answer::parse(&bytes[..filled])? {
            return Ok(answer);
        }
        if filled == bytes.len() {
            bytes.resize(filled * 2, 0);
        }
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    closes: bool,
}

impl Answer {
    /// `None` if the answer is not complete yet.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        let malformed = |what| Fault::new("body", what);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let (head, body) = (&bytes[..end], &bytes[end + 4..]);
        let head = str::from_utf8(head).map_err(|_| malformed("a head that is no text"))?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|line| line.get(..3)?.parse().ok())
            .ok_or_else(|| malformed("no status"))?;
        let field = |name: &str| {
            lines.clone().find_map(|line| {
                let (is, value) = line.split_once(':')?;
                is.eq_ignore_ascii_case(name).then_some(value.trim())
            })
        };
        let length: usize = field("content-length")
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| malformed("no content-length"))?;
        if body.len() > length {
            return Err(malformed("more bytes than were announced"));
        }
        let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok((body.len() == length).then(|| Self {
            status,
            body: body.to_vec(),
            closes,
        }))
    }
}

/// A request that is due, and the answer that it must get.
struct Request {
    due: Instant,
    number: u64,
    kind: Kind,
    /// The seed of its other fields.
    random: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Url,
    List,
    Form,
    WrongName,
    UnknownPolicy,
    Health,
}

impl Request {
    fn route(&self) -> &'static str {
        match self.kind {
            Kind::Url | Kind::WrongName | Kind::UnknownPolicy => "POST /upload/presigned-url",
            Kind::List => "POST /upload/presigned-urls",
            Kind::Form => "POST /upload/presigned-post",
            Kind::Health => "GET /healthz",
        }
    }

    fn status(&self) -> u16 {
        match self.kind {
            Kind::Url | Kind::List | Kind::Form => 201,
            Kind::WrongName => 400,
            Kind::UnknownPolicy => 422,
            Kind::Health => 200,
        }
    }

    /// Unique for each request, so that an answer to another request is noticed.
    fn filename(&self, place: u64) -> String {
        let number = self.number;
        match (self.random + place) % 5 {
            0 => format!("{number}-{place}.jpg"),
            1 => format!("Überweisung {number}-{place} (final).pdf"),
            2 => format!("{}-{number}-{place}.bin", "long".repeat(30)),
            3 => format!("写真 {number}-{place}.png"),
            _ => format!("report+{number}&{place}.csv"),
        }
    }

    fn file(&self, place: u64) -> Value {
        let types = ["image/jpeg", "application/pdf", "text/csv"];
        let mut file = json!({
            "filename": self.filename(place),
            "contentType": types[(self.random % 3) as usize],
        });
        let random = self.random >> 8;
        if random.is_multiple_of(2) {
            file["size"] = json!(random % 5_000_000_000);
        }
        if random.is_multiple_of(3) {
            let names = ["album", "camera", "place", "author"];
            for name in &names[..(random % 5) as usize] {
                file["metadata"][name] = json!(format!("{name} {}", random % 1_000));
            }
        }
        file
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = self.file(0);
        let body = match self.kind {
            Kind::Health => {
                return b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
            }
            Kind::Url | Kind::Form => file,
            Kind::List => {
                let files: Vec<Value> =
                    (0..FILES_OF_A_LIST).map(|place| self.file(place)).collect();
                json!({ "files": files })
            }
            Kind::WrongName => {
                file["filename"] = json!(format!("../{}", self.number));
                file
            }
            Kind::UnknownPolicy => {
                file["policy"] = json!("unknown");
                file
            }
        }
        .to_string();
        let (route, length) = (self.route(), body.len());
        format!(
            "{route} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn check(&self, answer: &Answer) -> Result<(), Fault> {
        let said = || String::from_utf8_lossy(&answer.body);
        if answer.status != self.status() {
            let what = format!("{} for {}: {}", answer.status, self.route(), said());
            return Err(Fault::new("status", what));
        }
        let body: Value =
            serde_json::from_slice(&answer.body).map_err(|error| Fault::new("body", error))?;
        let is_grant = |grant: &Value, place| {
            let has =
                |name: &str, what: &dyn Fn(&str) -> bool| grant[name].as_str().is_some_and(what);
            has("url", &|url| url.starts_with("https://"))
                && has("key", &|key| {
                    key.ends_with(&format!("/{}", self.filename(place)))
                })
        };
        let is_signed = |grant: &Value| {
            let url = grant["url"].as_str();
            url.is_some_and(|url| url.contains("X-Amz-Signature="))
        };
        let is_right = match self.kind {
            Kind::Url => is_grant(&body, 0) && is_signed(&body),
            Kind::List => body["uploads"].as_array().is_some_and(|grants| {
                grants.len() as u64 == FILES_OF_A_LIST
                    && (0..)
                        .zip(grants)
                        .all(|(place, grant)| is_grant(grant, place) && is_signed(grant))
            }),
            Kind::Form => is_grant(&body, 0) && body["fields"]["x-amz-signature"].is_string(),
            Kind::WrongName => body["code"] == "invalid-request",
            Kind::UnknownPolicy => body["code"] == "unknown-policy",
            Kind::Health => body["status"] == "ok",
        };
        if is_right {
            Ok(())
        } else {
            let what = format!("for {}: {}", self.route(), said());
            Err(Fault::new("body", what))
        }
    }
}

/// A failure: its kind, which is counted, and a description.
#[derive(Debug)]
struct Fault {
    kind: &'static str,
    detail: String,
}

impl Fault {
    fn new(kind: &'static str, detail: impl Display) -> Self {
        let detail = detail.to_string();
        Self { kind, detail }
    }

    /// For a request that is due on a connection that failed.
    fn lost() -> Self {
        Self::new("lost", "its connection is gone")
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::new("reset", error)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

/// The results of the current second and phase.
struct Seen {
    phase: &'static str,
    open: u64,
    /// Requests that were due, in all phases; the next fields count all phases, too.
    due: u64,
    sent: u64,
    answered: u64,
    failed: u64,
    answers: BTreeMap<String, u64>,
    faults: BTreeMap<&'static str, u64>,
    /// Microseconds.
    second: Histogram,
    all: Histogram,
}

impl Seen {
    fn new() -> Self {
        Self {
            phase: "",
            open: 0,
            due: 0,
            sent: 0,
            answered: 0,
            failed: 0,
            answers: BTreeMap::new(),
            faults: BTreeMap::new(),
            second: Histogram::default(),
            all: Histogram::default(),
        }
    }

    fn next_request(&mut self, due: Instant, random: &mut Random) -> Request {
        self.due += 1;
        Request {
            due,
            number: self.due,
            kind: match random.next() % 100 {
                0..80 => Kind::Url,
                80..85 => Kind::List,
                85..90 => Kind::Form,
                90..93 => Kind::WrongName,
                93..96 => Kind::UnknownPolicy,
                _ => Kind::Health,
            },
            random: random.next() >> 8,
        }
    }

    fn answered(&mut self, request: &Request, answer: &Answer) {
        let took = request.due.elapsed().as_micros();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        self.second.record(took);
        self.all.record(took);
        let name = format!("{} {}", request.route(), answer.status);
        *self.answers.entry(name).or_default() += 1;
        match request.check(answer) {
            Ok(()) => self.answered += 1,
            Err(fault) => self.fail(&fault),
        }
    }

    fn fail(&mut self, fault: &Fault) {
        self.failed += 1;
        *self.faults.entry(fault.kind).or_default() += 1;
        if self.failed <= 20 {
            eprintln!("{fault}");
        }
    }

    fn is_all_sent(&self) -> bool {
        self.sent + self.failed >= self.due
    }

    fn is_settled(&self) -> bool {
        self.answered + self.failed >= self.due
    }

    fn begin(&mut self, phase: &'static str) {
        self.phase = phase;
        self.all = Histogram::default();
    }

    fn end_second(&mut self) {
        println!("{}", self.line("second", &self.second));
        self.second = Histogram::default();
    }

    fn end_phase(&mut self) {
        println!("{}", self.line("phase", &self.all));
    }

    fn line(&self, event: &str, latencies: &Histogram) -> Value {
        json!({
            "event": event,
            "phase": self.phase,
            "open": self.open,
            "due": self.due,
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "answers": self.answers,
            "faults": self.faults,
            "count": latencies.count,
            "p50": latencies.at(0.5),
            "p99": latencies.at(0.99),
            "p999": latencies.at(0.999),
            "max": latencies.max,
        })
    }
}

/// Counts values in buckets that are less than 1 % wide.
#[derive(Default)]
struct Histogram {
    /// The key is the upper end of the bucket.
    buckets: BTreeMap<u64, u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    fn record(&mut self, value: u64) {
        /// The number of bits that a bucket distinguishes.
        const BITS: u32 = 7;
        let rest = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
        *self.buckets.entry(value | ((1 << rest) - 1)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// The value that this share of all values does not exceed; 0 if there are none.
    fn at(&self, part: f64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let wanted = self.count as f64 * part;
        let mut count = 0;
        for (&value, &more) in &self.buckets {
            count += more;
            #[expect(clippy::cast_precision_loss, reason = "counts are small")]
            if count as f64 >= wanted {
                return value.min(self.max);
            }
        }
        self.max
    }
}

/// A generator (splitmix64) with the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number above 0 and at most 1.
    fn fraction(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "fewer bits than a float has")]
        let bits = (self.next() >> 12) as f64;
        (bits + 1.0) / 2_f64.powi(52)
    }
}
