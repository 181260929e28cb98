# The image of reaper: a virtual environment on a Python base, without a package manager of its own.
#
#   docker build --tag reaper .
#
# BASE builds and RUNTIME runs; they need the same Python at the same path, and RUNTIME needs nothing else, not even a
# shell. Builds with BuildKit and with the classic builder.
ARG BASE=python:3.13-slim
ARG RUNTIME=${BASE}

FROM ${BASE} AS build
# For pip: another index, a certificate, or --no-index --find-links=/src/wheels when the wheels lie beside this file.
ARG PIP_OPTIONS=""
WORKDIR /src
COPY . .
# The environment is made without pip and filled from outside: none has to be taken out again. No one edits the files of
# an image, so Python need not look at their dates, which copying a layer may change.
RUN python3 -m venv --without-pip /opt/reaper \
 && PIP_CONSTRAINT=/src/constraints.txt python3 -m pip --python /opt/reaper/bin/python3 install \
      --no-cache-dir --disable-pip-version-check --no-compile ${PIP_OPTIONS} . \
 && /opt/reaper/bin/python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/reaper/lib \
 && mkdir -p /root-of-image/etc/reaper /root-of-image/var/lib/reaper

# What every target has in common.
FROM ${RUNTIME} AS common
COPY --from=build /opt/reaper /opt/reaper
COPY --from=build /root-of-image/etc/reaper /etc/reaper
# A number, which needs no entry in /etc/passwd, and which an orchestrator can tell from root.
COPY --from=build --chown=65532:65532 /root-of-image/var/lib/reaper /var/lib/reaper
ENV PATH=/opt/reaper/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/reaper
# ./reaper.toml and /etc/reaper/reaper.toml are the same file.
WORKDIR /etc/reaper
USER 65532:65532
ARG VERSION="" REVISION="" CREATED=""
LABEL org.opencontainers.image.title="reaper" \
      org.opencontainers.image.description="Deletes the Docker containers and cloud sandboxes that AI-agent benchmark runs leave behind" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# In the place of Ryuk: docker build --target ryuk --tag reaper-ryuk .
#
# Testcontainers' libraries start it without a command, and with a socket that belongs to root, or to a group of an
# unknown number.
FROM common AS ryuk
USER 0:0
WORKDIR /var/lib/ryuk
ENV STATE_DIRECTORY=/var/lib/ryuk
EXPOSE 8080
# By this the libraries know it, and no Ryuk deletes it.
LABEL org.testcontainers.ryuk="true"
STOPSIGNAL SIGTERM
# One of the libraries connects at once: see there.
COPY --from=build /src/reaper/ryuk/entrypoint.py /opt/reaper/early.py
ENTRYPOINT ["python3", "-I", "-S", "/opt/reaper/early.py"]
CMD ["ryuk"]

# The default target, and so the last one: the service, or with --once one sweep.
FROM common AS reaper
VOLUME /var/lib/reaper
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["python3", "-I", "-m", "reaper.probe"]
ENTRYPOINT ["reaper"]
