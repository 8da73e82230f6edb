//! Holds a lock while it works, and stops working when the lock is lost.
//!
//! `cargo run -p client --example lock -- 127.0.0.1:7400`

use std::time::Duration;

use client::{Client, ClientOptions, Wait};

#[tokio::main(flavor = "current_thread")]
async fn main() -> client::Result<()> {
    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:7400".to_owned());
    }
    let client = Client::connect(&endpoints, ClientOptions::default())?;
    let session = client.session(Duration::from_secs(10), "example").await?;

    let Some(guard) = session.lock("example", Wait::Millis(30_000)).await? else {
        eprintln!("somebody else kept the lock for half a minute");
        return session.close().await;
    };
    // What the lock protects refuses every token lower than the highest it has seen.
    eprintln!("held under the fencing token {}", guard.token());
    tokio::select! {
        reason = guard.lost() => eprintln!("stopped, the lock is lost: {reason}"),
        () = work() => guard.release().await?,
    }
    session.close().await
}

async fn work() {
    tokio::time::sleep(Duration::from_secs(1)).await;
    eprintln!("done");
}
