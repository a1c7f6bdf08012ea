use service_kit::{AuthState, TlsState, check_bind};

fn check(address: &str, tls: TlsState, auth: AuthState) -> Result<(), String> {
    check_bind(address.parse().expect("an address"), tls, auth).map_err(|error| error.to_string())
}

#[test]
fn loopback_needs_nothing() {
    for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(check(address, TlsState::Disabled, AuthState::Disabled), Ok(()), "{address}");
    }
}

#[test]
fn other_addresses_need_tls_and_credentials() {
    for address in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1", "[::ffff:192.0.2.1]:1"] {
        let error = check(address, TlsState::Disabled, AuthState::Enabled).expect_err(address);
        assert!(error.contains("--insecure-no-tls") && error.contains("--tls-cert"), "{error}");
        let error = check(address, TlsState::Enabled, AuthState::Disabled).expect_err(address);
        assert!(error.contains("--insecure-no-auth"), "{error}");
        assert_eq!(check(address, TlsState::Enabled, AuthState::Enabled), Ok(()));
    }
}

#[test]
fn each_flag_lifts_one_requirement_only() {
    assert!(check("0.0.0.0:1", TlsState::WaivedByFlag, AuthState::Disabled).is_err());
    assert!(check("0.0.0.0:1", TlsState::Disabled, AuthState::WaivedByFlag).is_err());
    assert_eq!(check("0.0.0.0:1", TlsState::WaivedByFlag, AuthState::WaivedByFlag), Ok(()));
}
