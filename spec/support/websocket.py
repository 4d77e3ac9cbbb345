"""A WebSocket library on both sides of a gateway: `serve` echoes, `visit PORT CHECK` is the client.

serve prints its port. visit prints "ok", or fails with what it has seen.
"""
import asyncio
import sys

import websockets

BIG = 8 * 2**20


async def echo(socket):
    async for message in socket:
        if message == "close":
            await socket.close(4321, "as you wish")
            return
        await socket.send(message)


async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=BIG) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


def connect(port):
    return websockets.connect(f"ws://127.0.0.1:{port}/ws", max_size=BIG)


async def expect_echo(socket, message):
    await socket.send(message)
    assert await socket.recv() == message


async def messages(port):
    async with connect(port) as socket:
        await expect_echo(socket, "grüße")
        await expect_echo(socket, "")
        await expect_echo(socket, bytes(range(256)))
        await expect_echo(socket, "x" * 2**20)
        await expect_echo(socket, b"\0" * 2**20)


async def pings(port):
    async with connect(port) as socket:
        await asyncio.wait_for(await socket.ping(b"there?"), 10)
        await expect_echo(socket, "after")


async def closes(port):
    socket = await connect(port)
    await socket.send("close")
    await socket.wait_closed()
    assert (socket.close_code, socket.close_reason) == (4321, "as you wish"), socket.close_code
    socket = await connect(port)
    await socket.close(4000, "mine")
    assert socket.close_code == 4000, socket.close_code


async def crowd(port):
    sockets = await asyncio.gather(*(connect(port) for _ in range(100)))
    for turn in range(3):
        await asyncio.gather(*(expect_echo(s, f"{turn} {i}" * 500) for i, s in enumerate(sockets)))
    await asyncio.gather(*(socket.close() for socket in sockets))


def main():
    if sys.argv[1] == "serve":
        asyncio.run(serve())
    else:
        checks = {"messages": messages, "pings": pings, "closes": closes, "crowd": crowd}
        asyncio.run(checks[sys.argv[3]](int(sys.argv[2])))
        print("ok")


main()
