"""The addresses of our own services: looked up again and again, remembered for a while, never forgotten on failure."""

from ipaddress import ip_address, ip_network

from shared.config.values import Address, Service
from shared.webhooks.address_policy import AddressPolicy
from tests.support.manual_clock import ManualClock
from tests.support.receivers import receiver
from tests.support.resolvers import FixedResolver
from worker.deliveries.service_addresses import REMEMBERED_S, ServiceAddresses
from worker.deliveries.ssrf_guard import AddressRefused, guarded_connector
from worker.deliveries.webhook import open_session, post


class Lookup:
    """Answers with the addresses that it has; without any it fails."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def __call__(self, host: str) -> set[Address]:
        self.asked.append(host)
        if not self.addresses:
            raise OSError("no such name")
        return set(map(ip_address, self.addresses))


AUTH = Service("auth.internal", 8080)


def of(*addresses: str) -> dict[str, frozenset[Address]]:
    return {AUTH.host: frozenset(map(ip_address, addresses))}


async def test_hosts_are_looked_up_once_each_and_literal_addresses_never() -> None:
    lookup = Lookup("10.0.0.7")
    services = (AUTH, Service(AUTH.host, 9090), Service("127.0.0.1", 80), Service("localhost", 80), Service("::1", 80))
    addresses = ServiceAddresses(services, lookup=lookup)
    assert addresses.known == {}
    await addresses.run_once()
    assert lookup.asked == [AUTH.host]
    assert addresses.known == of("10.0.0.7")


async def test_an_address_stays_closed_for_a_while_after_the_host_has_left_it() -> None:
    clock, lookup = ManualClock(), Lookup("10.0.0.7")
    addresses = ServiceAddresses([AUTH], lookup=lookup, clock=clock)
    await addresses.run_once()
    lookup.addresses = ("10.0.0.8",)
    clock.now += 60
    await addresses.run_once()
    assert addresses.known == of("10.0.0.7", "10.0.0.8")
    clock.now += REMEMBERED_S
    await addresses.run_once()
    assert addresses.known == of("10.0.0.8")


async def test_a_host_that_does_not_resolve_keeps_the_addresses_that_it_had() -> None:
    clock, lookup = ManualClock(), Lookup("10.0.0.7")
    addresses = ServiceAddresses([AUTH], lookup=lookup, clock=clock)
    await addresses.run_once()
    lookup.addresses = ()
    clock.now += 10 * REMEMBERED_S
    await addresses.run_once()
    assert addresses.known == of("10.0.0.7")


async def test_a_policy_follows_what_is_known() -> None:
    lookup = Lookup()
    addresses = ServiceAddresses([AUTH], lookup=lookup)
    policy = AddressPolicy((ip_network("10.0.0.0/8"),), frozenset(), (AUTH,), addresses.known, closes_unknown=True)
    await addresses.run_once()
    assert not policy.permits(ip_address("10.0.0.9"), AUTH.port)
    lookup.addresses = ("10.0.0.7",)
    await addresses.run_once()
    assert policy.permits(ip_address("10.0.0.9"), AUTH.port)
    assert not policy.permits(ip_address("10.0.0.7"), AUTH.port)


async def test_no_name_leads_to_a_service_whatever_network_is_open() -> None:
    async with receiver() as auth:
        service = Service("auth.internal", auth.port)
        addresses = ServiceAddresses([service], lookup=Lookup("127.0.0.1"))
        await addresses.run_once()
        policy = AddressPolicy((ip_network("127.0.0.0/8"),), frozenset(), (service,), addresses.known, True)
        connector = guarded_connector(policy, resolver=FixedResolver("127.0.0.1"))
        async with open_session(connector, timeout_s=2, user_agent="payments/tests") as session:
            for host in ("innocent.example", "127.0.0.1", "127.9.9.9"):
                answer = await post(session, f"http://{host}:{auth.port}/", headers={}, body=b"")
                assert answer.error == str(AddressRefused())
    assert auth.requests == []
