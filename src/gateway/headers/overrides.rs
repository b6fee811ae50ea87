//! Header fields by which an upstream could see another request or client than Keytoll saw.

/// Fields that make an upstream see another method or URL than Keytoll priced, from a trusted proxy as well.
pub(super) fn shows_another_request(canonical: &str) -> bool {
    matches!(
        canonical,
        "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-method"
            | "x-original-method"
            | "x-original-path"
            | "x-original-uri"
            | "x-original-url"
            | "x-override-url"
            | "x-rewrite-uri"
            | "x-rewrite-url"
            | "x-forwarded-method"
            | "x-forwarded-path"
            | "x-forwarded-uri"
            | "x-forwarded-url"
            | "x-envoy-original-method"
            | "x-envoy-original-path"
    )
}

/// Fields by which a proxy in front says who its client is.
pub(super) fn shows_another_client(canonical: &str) -> bool {
    canonical.starts_with("x-forwarded") || matches!(canonical, "forwarded" | "x-real-ip" | "x-original-host")
}
