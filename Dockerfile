# Two images, each a program without a shell, run by a user without rights:
#
#   docker build --target skald -t skald .
#   docker build --target participants -t skald-participants .
ARG RUST_VERSION=1.94

FROM rust:${RUST_VERSION}-bookworm AS build
# Anything: Skald as `cargo xtask dist` makes it, which takes three times as long and spares a ninth of its CPU time.
ARG GUIDED=
WORKDIR /src
COPY . .
# The caches outlive the build, so what is built must leave them within it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package skald --package skald-participants --bins \
    && if [ -n "$GUIDED" ]; then cargo xtask dist; fi \
    && mkdir -p /out/data \
    && cp target/dist/skald target/dist/skald-participant /out/

# glibc, certificates and a user; of the same Debian as above.
FROM gcr.io/distroless/cc-debian12:nonroot AS base
# Where databases of SQLite lie, unless a server is named. A volume keeps them.
COPY --from=build --chown=nonroot:nonroot /out/data /data
USER nonroot
EXPOSE 8080

FROM base AS participants
COPY --from=build /out/skald-participant /usr/local/bin/skald-participant
ENTRYPOINT ["/usr/local/bin/skald-participant"]

FROM base AS skald
COPY --from=build /out/skald /usr/local/bin/skald
ENV SKALD_SERVER_LISTEN=0.0.0.0:8080 \
    SKALD_DATABASE_URL=sqlite:/data/skald.db \
    SKALD_LOG_FORMAT=json
HEALTHCHECK --interval=5s --timeout=6s --start-period=60s --retries=3 CMD ["/usr/local/bin/skald", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/skald"]
CMD ["serve"]
