"""kafka-python: its clients take a class as ``selector=``. The broker is a thread with minimal answers."""

import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from content import body
from serving import DEADLINE
from support.pages import ROOT, blocks_of

import pyepoll

kafka: Any = pytest.importorskip("kafka")

MESSAGES = 300
"""Of up to 50 kB each."""

VERSIONS = {0: (3, 7), 3: (0, 7), 18: (0, 3)}
"""The requests of the broker: Produce, Metadata and ApiVersions, before their headers became flexible."""


class Broker:
    """One topic with one partition, which keeps the messages."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.stored: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.conversations: list[Future[None]] = []
        self.lock = threading.Lock()

    def serve(self, threads: ThreadPoolExecutor) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self.conversations.append(threads.submit(self.converse, connection))

    def converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while size := stream.read(4):
                frame = stream.read(*struct.unpack(">i", size))
                key, version, correlation = struct.unpack(">hhi", frame[:8])
                answer = self.answer(key, version, frame).encode(version=version)
                connection.sendall(struct.pack(">ii", 4 + len(answer), correlation) + answer)

    def answer(self, key: int, version: int, frame: bytes) -> Any:
        metadata: Any = pytest.importorskip("kafka.protocol.metadata")
        if key == 18:
            return self.versions(metadata.ApiVersionsResponse)
        if key == 3:
            return self.topics(metadata.MetadataResponse)
        return self.store(version, frame)

    def versions(self, response: Any) -> Any:
        known = [
            response.ApiVersion(api_key=key, min_version=low, max_version=high)
            for key, (low, high) in VERSIONS.items()
        ]
        return response(error_code=0, api_keys=known)

    def topics(self, response: Any) -> Any:
        topic = response.MetadataResponseTopic
        partition = topic.MetadataResponsePartition(
            error_code=0, partition_index=0, leader_id=1, leader_epoch=0, replica_nodes=[1], isr_nodes=[1]
        )
        return response(
            brokers=[response.MetadataResponseBroker(node_id=1, host="127.0.0.1", port=self.port)],
            cluster_id="cluster",
            controller_id=1,
            topics=[topic(error_code=0, name="topic", is_internal=False, partitions=[partition])],
        )

    def store(self, version: int, frame: bytes) -> Any:
        producer: Any = pytest.importorskip("kafka.protocol.producer")
        record: Any = pytest.importorskip("kafka.record")
        request = producer.ProduceRequest.decode(frame, version=version, header=True)
        with self.lock:
            for batch in record.MemoryRecords(bytes(request.topic_data[0].partition_data[0].records)):
                self.stored += [bytes(each.value) for each in batch]
        response = producer.ProduceResponse
        topic = response.TopicProduceResponse
        partition = topic.PartitionProduceResponse(index=0, error_code=0, base_offset=0)
        return response(responses=[topic(name="topic", partition_responses=[partition])])


@pytest.fixture
def broker() -> Iterator[Broker]:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(16) as threads:
        broker = Broker(listener)
        threads.submit(broker.serve, threads)
        yield broker
        listener.shutdown(socket.SHUT_RDWR)
        for connection in broker.connections:
            if connection.fileno() != -1:
                connection.shutdown(socket.SHUT_RDWR)
        for conversation in broker.conversations:
            conversation.result(DEADLINE)


class Counting(pyepoll.EpollSelector):
    selects = 0

    def select(self, timeout: float | None = None) -> Any:
        type(self).selects += 1
        return super().select(timeout)


def test_a_kafka_producer_uses_our_selector(broker: Broker) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=f"127.0.0.1:{broker.port}",
        selector=Counting,
        enable_idempotence=False,
        bootstrap_timeout_ms=10_000,
        acks=1,
        linger_ms=5,
    )
    try:
        sent = [body(seed, 50 * seed) for seed in range(MESSAGES)]
        futures = [producer.send("topic", value=value) for value in sent]
        for future in futures:
            future.get(timeout=DEADLINE)
    finally:
        producer.close(timeout=DEADLINE)
    assert sorted(broker.stored) == sorted(sent)
    assert Counting.selects > 3


def test_a_kafka_admin_client_runs_as_documented(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in blocks_of(ROOT / "docs/clients.md") if block.run_by == Path(__file__)]
    code = block.text.replace("127.0.0.1:9092", f"127.0.0.1:{broker.port}")
    assert code != block.text
    # In this process: kafka-python's import of itself warns on Python 3.11, and importorskip() lets it.
    exec(code, {})
    assert capsys.readouterr().out == "topic\n"


def test_a_kafka_admin_client_uses_our_selector(broker: Broker) -> None:
    Counting.selects = 0
    admin = kafka.KafkaAdminClient(
        bootstrap_servers=f"127.0.0.1:{broker.port}", selector=Counting, bootstrap_timeout_ms=10_000
    )
    try:
        assert list(admin.list_topics()) == ["topic"]
    finally:
        admin.close()
    assert Counting.selects > 3
