# The agent in a container, with iperf3. Built without --target it is the agent; --target dev is
# the Manager for development, which deployment/docker-compose.yml starts. docs/deployment.md says
# how to run either.

# The locked requirements and README.md's range of Pythons end with 3.13.
FROM python:3.13-slim-trixie AS runtime
# iperf3 and tini stay at the release that Debian 13 has; its security updates are let in.
# tini is PID 1: the agent waits for its own children, and somebody has to reap all others.
# The base image's pip has nothing to do here.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        'iperf3=3.18-*' 'tini=0.19.0-*' \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m pip uninstall --yes --quiet --root-user-action=ignore pip \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/iperf-agent
# iperf3 makes a file for the buffer of each stream. In the volume it may: the root can be
# read-only, and no /tmp is needed.
ENV PATH=/opt/iperf-agent/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIR=/var/lib/iperf-agent \
    STATUS_ADDRESS=127.0.0.1:9201 \
    TMPDIR=/var/lib/iperf-agent
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM

FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY requirements.txt ./
# Nor does the environment get a pip: this stage's installs into it.
RUN python3 -m venv --without-pip /opt/iperf-agent/venv \
    && python3 -m pip --python /opt/iperf-agent/venv install --no-cache-dir \
        --only-binary=:all: --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
# The package carries the units.
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
# /livez says that the hub turns. A Manager that is away makes nobody unhealthy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, sys; from http.client import HTTPConnection; \
c = HTTPConnection(os.environ['STATUS_ADDRESS'], timeout=4); c.request('GET', '/livez'); \
sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "agent-run"]
