export default { server: { proxy: { "/profile": "http://127.0.0.1:8080" } } };
