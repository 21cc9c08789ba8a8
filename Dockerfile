# One static program and nothing else. scripts/dist builds it:
#   scripts/dist && docker build -t pagewire .
#   docker run --read-only -p 8080:8080 -v "$PWD:/srv:ro" pagewire
# Settings are variables of the environment: every flag of `pagewire serve` is one.
# No HEALTHCHECK: there is no client in it to ask with. Let the orchestrator ask over HTTP.
FROM scratch
COPY target/dist/image/ /
USER 65532:65532
ENV PAGEWIRE_LISTEN=[::]:8080 PAGEWIRE_ROOT=/srv
EXPOSE 8080
ENTRYPOINT ["/pagewire"]
CMD ["serve"]
