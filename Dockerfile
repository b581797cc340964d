# Builds the agent with iperf3, or with --target dev the Manager for development, which
# deployment/docker-compose.yml uses. docs/deployment.md says how to run them.

# 3.13 is the newest Python that the locked requirements support.
FROM python:3.13-slim-trixie AS runtime
# The versions of iperf3 and tini are those of Debian 13, including its security updates. tini is
# PID 1: it reaps all processes that are not the agent's own children. pip is not needed.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        'iperf3=3.18-*' 'tini=0.19.0-*' \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m pip uninstall --yes --quiet --root-user-action=ignore pip \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/iperf-agent
# iperf3 creates a file for the buffer of each stream. With TMPDIR in the volume, the root can be
# read-only and no /tmp is needed.
ENV PATH=/opt/iperf-agent/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIR=/var/lib/iperf-agent \
    STATUS_ADDRESS=127.0.0.1:9201 \
    TMPDIR=/var/lib/iperf-agent
# A number, because Kubernetes cannot tell from a name that the user is not root.
USER 10001:10001
STOPSIGNAL SIGTERM

FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY requirements.txt ./
# The environment needs no pip of its own: the image's pip installs into it.
RUN python3 -m venv --without-pip /opt/iperf-agent/venv \
    && python3 -m pip --python /opt/iperf-agent/venv install --no-cache-dir \
        --only-binary=:all: --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
# The package contains the systemd units.
COPY deployment deployment
RUN python3 -m pip --python /opt/iperf-agent/venv install --no-cache-dir --no-deps .

FROM build AS build-dev
COPY requirements-dev.txt ./
RUN python3 -m pip --python /opt/iperf-agent/venv install --no-cache-dir \
        --constraint requirements-dev.txt '.[dev]'

FROM runtime AS dev
COPY --from=build-dev /opt/iperf-agent /opt/iperf-agent
ENTRYPOINT ["tini", "--", "python", "-m", "agent.dev"]

FROM runtime AS agent
COPY --from=build /opt/iperf-agent /opt/iperf-agent
VOLUME ["/var/lib/iperf-agent"]
# /livez shows that the event loop runs. An outage of the Manager does not matter here.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, sys; from http.client import HTTPConnection; \
c = HTTPConnection(os.environ['STATUS_ADDRESS'], timeout=4); c.request('GET', '/livez'); \
sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "agent-run"]
