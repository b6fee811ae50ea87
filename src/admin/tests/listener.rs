//! What the listener promises.

use super::*;

#[tokio::test]
async fn beyond_its_limit_the_listener_serves_probes_and_metrics_only() {
    let plane = Plane::start_with(|_, limits| limits.admin_connections = 1).await;
    let mut first = TcpStream::connect(plane.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut some = [0; 12];
    first.read_exact(&mut some).await.unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    let second = plane.get("/v1/users").await;
    assert_eq!((second.problem(), second.header("retry-after")), ((503, "overloaded"), Some("1")));
    for probe in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(plane.send("GET", probe, "", "").await.status, 200, "{probe}");
    }
    drop(first);
    while plane.get("/v1/users").await.status != 200 {}
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let plane = Plane::start_with(|_, limits| limits.header_timeout = Duration::from_millis(1)).await;
    let mut slow = TcpStream::connect(plane.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost").await.unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_takes_no_new_ones() {
    let plane = Plane::start().await;
    let mut idle = TcpStream::connect(plane.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut some = [0; 12];
    idle.read_exact(&mut some).await.unwrap();
    // Long before the time for a next request is over.
    assert_eq!(plane.server.drain(Duration::from_secs(20)).await.cut, 0);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(plane.address).await.is_err());
}
