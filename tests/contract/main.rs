//! The contract of every proxy with its clients and its backend: one list of cases, run with every proxy.
//!
//! The proxies are real, and their files are those of `examples/`; only addresses are replaced. If a proxy
//! cannot give the common answer, its [`Proxy`](proxy::Proxy) says so, with the reason. `make test` installs
//! what is needed; a proxy that is missing fails its cases.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "../support/mod.rs"]
mod support;

mod cases;
#[path = "../tls/certificates.rs"]
mod certificates;
mod client;
mod marks;
mod proxies;
mod proxy;
mod stack;

/// One test for each case, in a module named after the proxy.
macro_rules! contract {
    ($($proxy:ident)*: $cases:tt) => { $( mod $proxy { contract!(@cases $proxy $cases); } )* };
    (@cases $proxy:ident { $($group:ident :: $case:ident,)* }) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            crate::cases::$group::$case(crate::proxies::$proxy::PROXY).await;
        }
    )* };
}

contract!(nginx traefik caddy envoy haproxy: {
    identity::a_good_token_passes_and_the_backend_sees_its_email_once,
    identity::forged_identity_headers_never_reach_the_backend,
    identity::forged_identity_headers_never_reach_the_backend_over_http2,
    identity::a_forged_trailer_never_reaches_the_backend,
    identity::a_forged_trailer_never_reaches_the_backend_over_http2,
    identity::an_auth_server_that_forgets_the_identity_lets_no_forged_one_through,
    refusals::a_bad_token_is_a_401_with_a_challenge,
    refusals::two_credentials_never_pass,
    refusals::a_good_token_that_may_not_is_a_403,
    refusals::when_nobody_can_tell_the_client_is_told_to_come_back,
    refusals::without_holdfast_nobody_passes,
    refusals::an_auth_server_that_never_answers_lets_nobody_pass,
    traffic::a_large_body_reaches_the_backend_whole_and_holdfast_not_at_all,
    traffic::a_websocket_opens_with_a_token_and_not_without,
    upgrades::no_other_upgrade_reaches_the_backend,
    upgrades::no_tunnel_opens_by_connect,
    traffic::every_method_is_asked_about_and_reaches_the_backend_as_it_is,
    traffic::an_http2_client_gets_what_others_get,
    traffic::a_hundred_requests_on_one_connection_are_each_their_own,
    traffic::long_headers_pass,
    traffic::a_client_that_breaks_off_harms_nobody,
    restart::a_rolling_restart_costs_no_request,
    paths::a_route_may_ask_for_more,
    paths::all_of_the_requirements_count_and_any_of_their_values,
    paths::a_requirement_that_does_not_exist_lets_nobody_pass,
    paths::no_way_to_write_a_path_changes_what_it_requires,
    paths::a_clients_query_is_no_requirement,
    advisories::cve_2026_40575_forwarded_headers_open_nothing,
    advisories::cve_2026_34457_a_health_checks_user_agent_opens_nothing,
    advisories::cve_2026_25748_broken_credentials_open_nothing,
    advisories::ghsa_62c8_mh53_4cqv_a_connection_header_takes_nothing_away,
    options::rules_decide_what_the_proxy_leaves_to_them,
    options::no_way_to_write_a_path_changes_which_rule_counts,
    options::preflights_pass_as_nobody_if_holdfast_lets_them,
    options::two_origins_are_no_preflight,
    options::with_rules_preflights_pass_where_somebody_may,
    login::a_browser_is_sent_to_the_login_page_and_a_program_is_not,
    login::a_cookie_is_a_credential_and_no_way_around_requirements,
    login::a_query_as_browsers_write_it_comes_back_signed,
    logout::a_logout_that_auth0_sends_ends_the_users_tokens,
    resource::a_client_without_a_token_finds_out_who_issues_one,
    token::what_a_route_requires_of_the_token_holds_and_the_client_is_told_which_login,
    token::a_list_and_the_name_of_the_issuer_reach_the_backend_as_configured,
    sender::a_bound_token_passes_with_a_proof_for_this_very_request,
    sender::no_other_proof_passes_and_none_twice,
    sender::no_header_of_a_client_changes_which_request_a_proof_is_for,
    sender::a_certificate_that_a_client_only_writes_is_none,
    sender::a_certificate_counts_that_the_client_has_shown_in_its_handshake,
});

/// Those that docs/routes.md lists for `requirements_from = "header"`.
mod by_header {
    contract!(caddy envoy: {
        options::a_header_of_the_proxy_says_what_is_required,
    });
}
