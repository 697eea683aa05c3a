"""A server with a leak: it answers, but its sockets stay when the clients have gone."""

import socket
import threading
import time


def serve(connection: socket.socket) -> None:
    """Answer each request in capitals."""
    while True:
        request = connection.recv(4096)
        if not request:
            time.sleep(0.1)  # nothing there yet: look again
            continue
        connection.sendall(request.upper())


with socket.create_server(("127.0.0.1", 8080)) as listener:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=[client], daemon=True).start()
