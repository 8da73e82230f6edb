//! Puts, gets, compares and lists keys.
//!
//! `cargo run -p client --example kv -- 127.0.0.1:7400`

use client::{Client, ClientOptions, Expect, KeyRange};

#[tokio::main(flavor = "current_thread")]
async fn main() -> client::Result<()> {
    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:7400".to_owned());
    }
    let client = Client::connect(&endpoints, ClientOptions::default())?;

    let revision = client.put("example/city", "Berlin").await?;
    eprintln!("put at revision {revision}");

    let item = client.get("example/city").await?.item;
    let mod_revision = item.as_ref().map_or(0, |item| item.mod_revision);
    eprintln!("got {:?}", item.map(|item| item.value));

    // Only if nobody has changed it since we read it.
    let expect = Expect::Revision(mod_revision);
    let reply = client.compare_and_set("example/city", expect, Some("Bonn".into())).await?;
    eprintln!("swapped: {}", reply.swapped);

    let mut range = KeyRange::prefix("example/");
    loop {
        let page = client.range(range.clone(), 100).await?;
        for item in &page.items {
            eprintln!("{:?} = {:?}", item.key, item.item.value);
        }
        match page.items.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => return Ok(()),
        }
    }
}
