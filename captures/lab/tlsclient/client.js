// One HTTPS request with Node, with nothing special about it: client.js ADDRESS PORT NAME CA.pem 12|13
const [address, port, name, authority, version] = process.argv.slice(2);
const request = require("https").request({
  host: address, port, servername: name, path: "/", headers: { host: name }, agent: false,
  ca: require("fs").readFileSync(authority), timeout: 5000,
  maxVersion: version === "12" ? "TLSv1.2" : "TLSv1.3",
}, (response) => {
  response.resume();
  response.on("end", () => console.log("node:", response.statusCode));
});
request.on("timeout", () => request.destroy(new Error("timeout")));
request.on("error", (error) => console.log("node:", error.code, error.message));
request.end();
