//! The load generator of `scripts/load`: many connections that stay open, and requests at a rate that is
//! spread over all of them. It knows the service's API and nothing else of it.
//!
//! The loop is open: when a request is due does not depend on the answers, and its latency counts from
//! that moment, so a service that stalls cannot hide it. Each second and after each phase, it prints the
//! results as a line of JSON.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};

use request::{Answer, Fault, Request};
use seen::Seen;

mod request;
mod seen;

/// Time limit for opening a connection and for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

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
