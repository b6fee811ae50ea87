//! Header sections as clients and upstreams send them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Whose header section it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    /// A program's, or the reply of a plain API.
    Small,
    /// A browser's, or the reply of an application for browsers.
    Browser,
}

pub(crate) const SIZES: [Size; 2] = [Size::Small, Size::Browser];

/// The text of a request's header section, the key apart.
pub(crate) fn request(size: Size) -> &'static str {
    match size {
        Size::Small => "host: api.example.com\nuser-agent: curl/8.14.1\naccept: */*",
        Size::Browser => {
            "host: api.example.com\n\
             connection: keep-alive\n\
             sec-ch-ua: \"Chromium\";v=\"142\", \"Not A(Brand\";v=\"24\"\n\
             sec-ch-ua-mobile: ?0\n\
             sec-ch-ua-platform: \"Linux\"\n\
             user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\n\
             accept: application/json, text/plain, */*\n\
             content-type: application/json\n\
             origin: https://app.example.com\n\
             sec-fetch-site: same-site\n\
             sec-fetch-mode: cors\n\
             sec-fetch-dest: empty\n\
             referer: https://app.example.com/forecast\n\
             accept-encoding: gzip, deflate, br, zstd\n\
             accept-language: en-GB,en;q=0.9,de;q=0.8\n\
             cookie: session=5f2b8c1e9a7d4f60b3c2e1d0a9f8e7d6; theme=dark; consent=all; _ga=GA1.2.1234567890.1700000000\n\
             cache-control: no-cache\n\
             pragma: no-cache"
        }
    }
}

/// The text of a reply's header section.
pub(crate) fn reply(size: Size) -> &'static str {
    match size {
        Size::Small => {
            "server: nginx/1.22.1\n\
             date: Thu, 26 Nov 2026 09:00:00 GMT\n\
             content-type: application/json\n\
             content-length: 24\n\
             connection: keep-alive"
        }
        Size::Browser => {
            "server: nginx/1.22.1\n\
             date: Thu, 26 Nov 2026 09:00:00 GMT\n\
             content-type: application/json; charset=utf-8\n\
             transfer-encoding: chunked\n\
             connection: keep-alive\n\
             keep-alive: timeout=5\n\
             vary: accept-encoding, origin\n\
             etag: W/\"5d8-1f3a9c2b7e\"\n\
             cache-control: private, max-age=60\n\
             content-encoding: br\n\
             access-control-allow-origin: https://app.example.com\n\
             access-control-allow-credentials: true\n\
             strict-transport-security: max-age=31536000; includeSubDomains\n\
             x-content-type-options: nosniff\n\
             referrer-policy: no-referrer\n\
             set-cookie: session=5f2b8c1e9a7d4f60b3c2e1d0a9f8e7d6; Path=/; HttpOnly; Secure\n\
             set-cookie: theme=dark; Path=/\n\
             server-timing: db;dur=3.1, app;dur=7.4"
        }
    }
}

/// A header section as hyper makes it: room for its lines, and values that are parts of one buffer.
pub(crate) fn parsed(text: &str) -> HeaderMap {
    let buffer = Bytes::copy_from_slice(text.as_bytes());
    let lines = std::str::from_utf8(&buffer).expect("it was text").lines();
    let mut headers = HeaderMap::with_capacity(text.lines().count());
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header line");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_maybe_shared(buffer.slice_ref(value.as_bytes())).expect("a value"));
    }
    headers
}
