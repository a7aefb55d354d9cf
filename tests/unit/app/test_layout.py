"""What `darner up` decides before it starts anything."""

from pathlib import Path

from darner.app.up.layout import MAX_SOCKET_PATH, daemon_config, manager_config, plan, scheduler_config


def test_no_port_is_given_out_twice_even_with_many_peers() -> None:
    layout = plan(Path("/data"), peers=20, port_base=9000, database=None)
    assert len(layout.all_ports()) == 3 + 21 * 5
    assert min(layout.all_ports()) == 9000


def test_ports_are_those_of_the_documented_example() -> None:
    layout = plan(Path("/data"), peers=2, port_base=8080, database=None)
    seed = layout.daemons[0]
    assert (layout.manager_http, layout.manager_grpc, layout.scheduler_grpc) == (
        "http://127.0.0.1:8080",
        "127.0.0.1:8081",
        "127.0.0.1:8082",
    )
    assert seed.seed
    assert (seed.ports["upload"], seed.ports["mirror"], seed.ports["metrics"], seed.ports["vortex"]) == (8090, 8091, 8092, 8095)


def test_every_daemon_has_a_host_name_and_a_directory_of_its_own() -> None:
    layout = plan(Path("/data"), peers=3, port_base=8080, database=None)
    assert len({daemon.hostname for daemon in layout.daemons}) == 4
    assert len({daemon.directory for daemon in layout.daemons}) == 4


def test_a_socket_path_that_is_too_long_moves_to_the_temporary_directory() -> None:
    deep = Path("/" + "x" * 150)
    paths = [daemon.socket for daemon in plan(deep, peers=2, port_base=8080, database=None).daemons]
    assert all(len(str(path)) <= MAX_SOCKET_PATH for path in paths)
    assert len(set(paths)) == 3


def test_configurations_name_only_loopback_addresses() -> None:
    layout = plan(Path("/data"), peers=1, port_base=8080, database=None)
    for config in (manager_config(layout), scheduler_config(layout), daemon_config(layout, layout.daemons[1])):
        assert "0.0.0.0" not in str(config)  # noqa: S104


def test_the_database_is_in_the_data_directory_unless_given() -> None:
    assert plan(Path("/data"), peers=0, port_base=8080, database=None).database == "sqlite:////data/darner.db"
    assert plan(Path("/data"), peers=0, port_base=8080, database="postgresql://db/x").database == "postgresql://db/x"
