// A client by Java's own TLS, for tests/tls_clients.rs: AUTHORITY URL; prints of each version and
// cipher what was agreed on, how many bytes came, and their SHA-256.
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URL;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.util.HexFormat;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

class Client {
    public static void main(String[] arguments) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (var file = new FileInputStream(arguments[0])) {
            var made = CertificateFactory.getInstance("X.509").generateCertificate(file);
            store.setCertificateEntry("server", made);
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        for (var suite : new String[] {
            "TLSv1.3 TLS_AES_128_GCM_SHA256",
            "TLSv1.3 TLS_AES_256_GCM_SHA384",
            "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256",
            "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLSv1.2 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        }) {
            var words = suite.split(" ");
            System.setProperty("https.protocols", words[0]);
            System.setProperty("https.cipherSuites", words[1]);
            var context = SSLContext.getInstance("TLS");
            context.init(null, trust.getTrustManagers(), null);
            // The second connection resumes the session of the first.
            for (int round = 0; round < 2; round++) {
                System.setProperty("http.keepAlive", "false");
                var asked = (HttpsURLConnection) new URL(arguments[1]).openConnection();
                asked.setSSLSocketFactory(context.getSocketFactory());
                var digest = MessageDigest.getInstance("SHA-256");
                long length = 0;
                String version;
                try (InputStream body = asked.getInputStream()) {
                    version = asked.getSSLSession().get().getProtocol();
                    var bytes = new byte[1 << 16];
                    for (int read; (read = body.read(bytes)) >= 0; length += read) {
                        digest.update(bytes, 0, read);
                    }
                }
                var sum = HexFormat.of().formatHex(digest.digest());
                System.out.println(version + " " + length + " " + sum);
            }
        }
    }
}
